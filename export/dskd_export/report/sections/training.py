"""How the student learned, and the teacher where this run trained it."""

from __future__ import annotations

import numpy as np
import yaml

from dskd_export.documents.base import Interval
from dskd_export.documents.training import EpochRecord, TrainingDocument
from dskd_export.report import chart_parts as parts
from dskd_export.report import charts
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import (
    Block,
    Figure,
    Gallery,
    Heading,
    Key,
    Note,
    Section,
    Settings,
    missing_file,
)
from dskd_export.report.charts import step_figure, value_cells
from dskd_export.report.load import History, Run
from dskd_export.report.sections.diagnosis import DRAWN_HERE
from dskd_export.report.series import Array, window_for
from dskd_export.report.tables import Cell, Table, make_table, missing, number

_LOG_FROM = 50.0  # a curve that spans more than this factor is drawn on a logarithmic axis


def section_from_run(run: Run) -> Section:
    """Draw loss terms, validation accuracy and learning rate; student first."""
    reference = run.teacher_accuracy.accuracy.top1 if run.teacher_accuracy else None
    blocks: list[Block] = [Heading("student-training", "Student")]
    if run.student is None:
        blocks.append(missing_file("distill.json", "distill", "The result of the training"))
    else:
        blocks += _summary(run.student, "student")
    if run.student_history is None:
        blocks.append(missing_file("train.jsonl", "distill", "The training curves"))
    else:
        blocks += _curves(run.student_history, run.student, "student", reference)
    blocks.append(Heading("teacher-training", "Teacher"))
    if run.teacher is None:
        blocks.append(Note(_describe_ready_teacher(run), "missing"))
    else:
        blocks += _summary(run.teacher, "teacher")
    if run.teacher_history is not None:
        blocks += _curves(run.teacher_history, run.teacher, "teacher", None)
    elif run.teacher is not None:
        blocks.append(missing_file("teacher.train.jsonl", "train", "The teacher's training curves"))
    return Section("training", "Training", blocks)


def monitors_from_run(run: Run) -> Section:
    """Draw the method's own monitors that the diagnosis does not draw."""
    title = "Method diagnostics"
    if run.student_history is None:
        return Section("diagnostics", title, [missing_file("train.jsonl", "distill", "The method's monitors")])
    steps = run.student_history.steps
    names = sorted({name for step in steps for name in step.monitors} - DRAWN_HERE)
    if not names:
        method = run.student.method if run.student else "of this run"
        return Section("diagnostics", title, [Note(f"The method {method} records no monitors.")])
    figures, rows = [], []
    for index, name in enumerate(names):
        own = [step for step in steps if name in step.monitors]
        values = np.array([step.monitors[name] for step in own], dtype=float)
        words, x = _words(name), [step.step for step in own]
        figures.append(
            step_figure(f"monitor-{index}", words, x, {words: values}, "value (no unit)", colour=parts.STUDENT)
        )
        rows.append({"monitor": Cell(words), **value_cells(values)})
    table = make_table("monitor-table", "Monitors", rows, _smoothing_note(len(steps)))
    return Section("diagnostics", title, [Gallery(figures), table], folded=True)


def _describe_ready_teacher(run: Run) -> str:
    """Describe how a teacher that this run did not train got its classes, and the key that trains it."""
    text = "teacher.json is not in the run folder: this run did not train its teacher."
    probe = None if run.student is None else run.student.teacher_probe
    if probe is not None:
        images, right = fmt.count(probe.images), fmt.percent(probe.train_accuracy)
        text += f" A linear classifier was fitted on its features of {images} images, {right} of them right."
    return f"{text} To train it: --set teacher.fit=all"


def _summary(document: TrainingDocument, role: str) -> list[Block]:
    data, memory = document.data, document.peak_memory_mb
    images = [
        f"{fmt.count(count)} {name}"
        for count, name in ((data.train_images, "for training"), (data.val_images, "for validation"))
        if count is not None
    ]
    facts = {
        "model": Cell(f"{document.model.name}; weights: {document.model.weights}"),
        "method": Cell(document.method),
        "length": Cell(f"{document.epochs} epochs, {fmt.count(document.steps)} steps"),
        "best top-1": Cell(f"{fmt.percent_interval(document.best.top1)}, epoch {document.best_epoch + 1}"),
        "last top-1": Cell(fmt.percent_interval(document.last.top1)),
        "images": Cell(", ".join(images)) if images else missing("not counted"),
        "training speed": Cell(fmt.rate(document.images_per_s)),
        "peak memory": missing("not measured") if memory is None else Cell(fmt.megabytes(memory)),
        "wall time": Cell(fmt.duration(document.provenance.seconds)),
    }
    for name, tap in document.taps.items():
        grid = f", {tap.grid[0]} × {tap.grid[1]} places" if tap.grid else ""
        facts[f"{name} tap"] = Cell(f"{tap.kind}, {tap.channels} channels{grid}, layout {tap.layout}")
    rows = [{"fact": Cell(label), "value": cell} for label, cell in facts.items()]
    note = "Epochs count from 1. The best epoch was chosen on the validation images: its accuracy is optimistic."
    blocks: list[Block] = [make_table(f"{role}-summary", f"Training of the {role}", rows, note)]
    if document.method_settings:
        settings = yaml.safe_dump(document.method_settings, sort_keys=False, allow_unicode=True)
        blocks.append(Settings(f"Settings of the method {document.method}", settings))
    return blocks


def _curves(
    history: History, document: TrainingDocument | None, role: str, reference: Interval | None
) -> list[Block]:
    blocks: list[Block] = []
    if history.cut_off:
        blocks.append(Note("The last line of the record is incomplete: the training is running or was killed."))
    figures: list[Figure] = []
    steps, x = history.steps, [step.step for step in history.steps]
    terms = _terms(history)
    if steps:
        log = _is_log(terms)
        axis = f"weighted loss (no unit{', log scale' if log else ''})"
        caption = _smoothing_note(len(steps))
        figures.append(step_figure(f"{role}-loss-chart", "Loss terms", x, terms, axis, log=log, caption=caption))
    if history.epochs:
        figures.append(_accuracy_figure(history.epochs, document, role, reference))
    for name, title, values in (
        ("rate", "Learning rate", [step.learning_rate for step in steps]),
        ("gradient", "Gradient norm, before clipping", [step.grad_norm for step in steps]),
    ):
        curve = np.array(values, dtype=float)  # None becomes NaN
        if np.isfinite(curve).any():
            label = title.partition(",")[0].lower()
            figures.append(
                step_figure(
                    f"{role}-{name}-chart", title, x, {label: curve}, f"{label} (no unit)", colour=parts.MUTED
                )
            )
    blocks.append(Gallery(figures))
    if steps:
        rows = [{"term": Cell(name), **value_cells(values)} for name, values in terms.items()]
        title = f"Loss terms of the {role}"
        blocks.append(make_table(f"{role}-loss-table", title, rows, "Single steps, not smoothed.", folded=True))
    if history.epochs:
        blocks.append(_epoch_table(history.epochs, role))
    return blocks


def _accuracy_figure(
    epochs: tuple[EpochRecord, ...], document: TrainingDocument | None, role: str, reference: Interval | None
) -> Figure:
    best = document.best_epoch if document else max(epochs, key=lambda record: record.top1).epoch
    colour = parts.TEACHER if role == "teacher" else parts.STUDENT
    legend = [Key(role, colour)]
    caption = f"Diamond: the epoch that was kept, {best + 1}."
    summary = (
        f"Line chart of the validation accuracy by epoch: from {fmt.percent(epochs[0].top1)} in epoch "
        f"{epochs[0].epoch + 1} to {fmt.percent(epochs[-1].top1)} in epoch {epochs[-1].epoch + 1}; "
        f"kept: epoch {best + 1}."
    )
    if reference is not None:
        legend.append(Key("teacher", parts.TEACHER, (6, 3)))
        caption += " Band: 95 % interval of the teacher."
        summary += f" The teacher reaches {fmt.percent_interval(reference)}."
    numbers, top1 = [record.epoch + 1 for record in epochs], [record.top1 for record in epochs]
    spec = charts.accuracy_chart(numbers, top1, best + 1, colour, reference)
    return Figure(f"{role}-accuracy-chart", "Validation accuracy", summary, spec, legend=legend, caption=caption)


def _epoch_table(epochs: tuple[EpochRecord, ...], role: str) -> Table:
    rows = [
        {
            "epoch": number(str(record.epoch + 1)),
            "step": number(fmt.count(record.step)),
            "training loss": number(record.train_loss),
            "validation loss": number(record.val_loss),
            "top-1": number(fmt.percent(record.top1)),
            "top-5": missing("fewer than six classes")
            if record.top5 is None
            else number(fmt.percent(record.top5)),
            "time": number(fmt.duration(record.seconds)),
            "best": Cell("best so far" if record.best else ""),
        }
        for record in epochs
    ]
    return make_table(f"{role}-epochs", f"Epochs of the {role}", rows, folded=True)


def _terms(history: History) -> dict[str, Array]:
    """Loss term in words -> one value a step, NaN where the step has no such term; the total first."""
    names = list(dict.fromkeys(name for step in history.steps for name in step.losses))
    names.sort(key=lambda name: name != "loss")
    if len(names) == 2 and names[0] == "loss":
        names.pop()  # the total of a single term is that term
    return {
        _words(name): np.array([step.losses.get(name, np.nan) for step in history.steps], dtype=float)
        for name in names
    }


def _is_log(terms: dict[str, Array]) -> bool:
    values = np.concatenate([values[np.isfinite(values)] for values in terms.values()])
    return bool(len(values) and values.min() > 0 and values.max() / values.min() > _LOG_FROM)


def _smoothing_note(steps: int) -> str:
    window = window_for(steps)
    if window == 1:
        return "Every step as recorded."
    most = min(steps, charts.MOST_POINTS)
    return f"Moving average over {window} of {fmt.count(steps)} steps; {most} points are drawn."


def _words(name: str) -> str:
    """A record's key as words: `head_accuracy` -> `head accuracy`; `loss` is the total."""
    return "total" if name == "loss" else name.replace("_", " ")
