"""How the student, and the teacher where it was trained here, learned."""

from __future__ import annotations

import numpy as np

from dskd_export.documents.base import Interval
from dskd_export.documents.training import EpochRecord, TrainingDocument
from dskd_export.report import chart_parts as looks
from dskd_export.report import charts
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import (
    Block,
    Cell,
    Figure,
    Gallery,
    Heading,
    Key,
    Note,
    Section,
    Table,
    missing,
    not_there,
    number,
)
from dskd_export.report.decision import teacher_accuracy
from dskd_export.report.load import History, Run
from dskd_export.report.sections.diagnosis import DRAWN_HERE
from dskd_export.report.series import Array, window_for

LOG_FROM = 50.0  # a curve that spans more than this factor is drawn on a logarithmic axis


def training(run: Run) -> Section:
    """Loss terms, validation accuracy, learning rate; student first."""
    measured = teacher_accuracy(run)
    reference = measured.accuracy.top1 if measured else None
    blocks: list[Block] = [Heading("student-training", "Student")]
    if run.student is None:
        blocks.append(not_there("distill.json", "distill", "How the training ended"))
    else:
        blocks.append(_summary(run.student, "student"))
    if run.student_history is None:
        blocks.append(not_there("train.jsonl", "distill", "The training curves"))
    else:
        blocks += _curves(run.student_history, run.student, "student", reference)
    blocks.append(Heading("teacher-training", "Teacher"))
    if run.teacher is None:
        blocks.append(
            Note(
                "teacher.json is not in the run folder: the teacher was not trained in this run. "
                "Where the recipe trains it, it is made by: dskd-compress train",
                "missing",
            )
        )
    else:
        blocks.append(_summary(run.teacher, "teacher"))
    if run.teacher_history is not None:
        blocks += _curves(run.teacher_history, run.teacher, "teacher", None)
    elif run.teacher is not None:
        blocks.append(not_there("teacher.train.jsonl", "train", "The teacher's training curves"))
    return Section("training", "Training", blocks)


def diagnostics(run: Run) -> Section:
    """The method's own monitors, a small chart for each that the diagnosis does not draw."""
    title = "Method diagnostics"
    if run.student_history is None:
        return Section("diagnostics", title, [not_there("train.jsonl", "distill", "The method's monitors")])
    steps = run.student_history.steps
    names = sorted({name for step in steps for name in step.monitors} - DRAWN_HERE)
    if not names:
        method = run.student.method if run.student else "of this run"
        return Section("diagnostics", title, [Note(f"The method {method} records no monitors.")])
    figures, rows = [], []
    for index, name in enumerate(names):
        pairs = [(step.step, step.monitors[name]) for step in steps if name in step.monitors]
        x, values = np.array([p[0] for p in pairs], dtype=float), np.array([p[1] for p in pairs], dtype=float)
        key = Key(_words(name), looks.STUDENT)
        figures.append(
            Figure(
                f"monitor-{index}",
                _words(name),
                f"Line chart of {_words(name)} over the steps. {_tells(values)}",
                charts.step_chart(x, {name: values}, "value (no unit)", [key], log=False),
            )
        )
        rows.append([Cell(_words(name)), *_figures_of(values)])
    table = Table("monitor-table", "Monitors", ("monitor", *_FIGURES), rows, note=_smoothing(len(steps)))
    return Section("diagnostics", title, [Gallery(figures), table])


_FIGURES = ("first", "lowest", "highest", "last")


def _summary(document: TrainingDocument, role: str) -> Table:
    settings = ", ".join(f"{key} {value}" for key, value in document.method_settings.items())
    data = document.data
    images = [
        f"{fmt.count(count)} {name}"
        for count, name in ((data.train_images, "for training"), (data.val_images, "for validation"))
        if count is not None
    ]
    rows = [
        ("model", Cell(f"{document.model.name}; weights: {document.model.weights}")),
        ("method", Cell(document.method + (f" ({settings})" if settings else ""))),
        ("length", Cell(f"{document.epochs} epochs, {fmt.count(document.steps)} steps")),
        ("best top-1", Cell(f"{fmt.percent_interval(document.best.top1)}, epoch {document.best_epoch + 1}")),
        ("last top-1", Cell(fmt.percent_interval(document.last.top1))),
        ("images", Cell(", ".join(images)) if images else missing("not counted")),
        ("speed of training", Cell(fmt.rate(document.images_per_s))),
        (
            "peak memory",
            Cell(fmt.megabytes(document.peak_memory_mb))
            if document.peak_memory_mb is not None
            else missing("not measured: this device does not tell"),
        ),
        ("wall time", Cell(fmt.duration(document.provenance.seconds))),
    ]
    for name, tap in document.taps.items():
        grid = f", {tap.grid[0]} × {tap.grid[1]} places" if tap.grid else ""
        rows.append(
            (f"tap of the {name}", Cell(f"{tap.kind}, {tap.channels} channels{grid}, layout {tap.layout}"))
        )
    return Table(
        f"{role}-summary",
        f"Training of the {role}",
        ("what", "value"),
        [[Cell(label), cell] for label, cell in rows],
        note="Epochs are counted from 1. The best epoch was chosen on the validation images, "
        "so its accuracy is slightly optimistic.",
    )


def _curves(
    history: History, document: TrainingDocument | None, role: str, reference: Interval | None
) -> list[Block]:
    blocks: list[Block] = []
    if history.cut_off:
        blocks.append(Note("The last line of the record is incomplete: the training was running or was killed."))
    figures: list[Figure] = []
    steps = history.steps
    if steps:
        x = np.array([step.step for step in steps], dtype=float)
        terms = _terms(history)
        keys = looks.keys_for([_words(name) for name in terms])
        log = _is_log(terms)
        scale = ", log scale" if log else ""
        words = "; ".join(f"{_words(name)}: {_tells(values)}" for name, values in terms.items())
        figures.append(
            Figure(
                f"{role}-loss-chart",
                "Loss terms",
                f"Line chart of the loss terms over the steps. {words}",
                charts.step_chart(x, terms, f"weighted loss (no unit{scale})", keys, log),
                legend=keys,
                caption=_smoothing(len(steps)),
            )
        )
    if history.epochs:
        figures.append(_accuracy_figure(history.epochs, document, role, reference))
    if steps:
        rates = np.array([step.learning_rate for step in steps], dtype=float)
        key = Key("learning rate", looks.MUTED)
        figures.append(
            Figure(
                f"{role}-rate-chart",
                "Learning rate",
                f"Line chart of the learning rate over the steps. {_tells(rates)}",
                charts.step_chart(x, {"learning rate": rates}, "learning rate (no unit)", [key], log=False),
            )
        )
        norms = np.array([np.nan if step.grad_norm is None else step.grad_norm for step in steps], dtype=float)
        if np.isfinite(norms).any():
            key = Key("gradient norm", looks.MUTED)
            figures.append(
                Figure(
                    f"{role}-gradient-chart",
                    "Gradient norm, before clipping",
                    f"Line chart of the gradient norm over the steps. {_tells(norms)}",
                    charts.step_chart(x, {"gradient norm": norms}, "gradient norm (no unit)", [key], log=False),
                )
            )
    blocks.append(Gallery(figures))
    if steps:
        blocks.append(
            Table(
                f"{role}-loss-table",
                f"Loss terms of the {role}",
                ("term", *_FIGURES),
                [[Cell(_words(name)), *_figures_of(values)] for name, values in terms.items()],
                note="Single steps, not smoothed.",
                folded=True,
            )
        )
    if history.epochs:
        blocks.append(_epoch_table(history.epochs, role))
    return blocks


def _accuracy_figure(
    epochs: tuple[EpochRecord, ...], document: TrainingDocument | None, role: str, reference: Interval | None
) -> Figure:
    best = document.best_epoch if document else max(epochs, key=lambda record: record.top1).epoch
    colour = looks.TEACHER if role == "teacher" else looks.STUDENT
    legend = [Key(role, colour)]
    caption = f"The diamond is the epoch that was kept, {best + 1}."
    if reference is not None:
        legend.append(Key("teacher", looks.TEACHER, (6, 3)))
        caption += " The band is the 95 % interval of the teacher."
    summary = (
        f"Line chart of the validation accuracy by epoch: from {fmt.percent(epochs[0].top1)} in epoch "
        f"{epochs[0].epoch + 1} to {fmt.percent(epochs[-1].top1)} in epoch {epochs[-1].epoch + 1}; "
        f"kept: epoch {best + 1}."
    )
    if reference is not None:
        summary += f" The teacher reaches {fmt.percent_interval(reference)}."
    numbers, top1 = [record.epoch + 1 for record in epochs], [record.top1 for record in epochs]
    spec = charts.accuracy_chart(numbers, top1, best + 1, colour, reference)
    return Figure(f"{role}-accuracy-chart", "Validation accuracy", summary, spec, legend=legend, caption=caption)


def _epoch_table(epochs: tuple[EpochRecord, ...], role: str) -> Table:
    rows = [
        [
            number(str(record.epoch + 1)),
            number(fmt.count(record.step)),
            number(fmt.significant(record.train_loss)),
            number(fmt.significant(record.val_loss)),
            number(fmt.percent(record.top1)),
            number(fmt.percent(record.top5)) if record.top5 is not None else missing("fewer than six classes"),
            number(fmt.duration(record.seconds)),
            Cell("best so far" if record.best else ""),
        ]
        for record in epochs
    ]
    columns = ("epoch", "step", "training loss", "validation loss", "top-1", "top-5", "time", "")
    return Table(f"{role}-epochs", f"Epochs of the {role}", columns, rows, folded=True)


def _terms(history: History) -> dict[str, Array]:
    """Loss term -> one value a step, NaN where the step has no such term; the total first."""
    names = list(dict.fromkeys(name for step in history.steps for name in step.losses))
    names.sort(key=lambda name: name != "loss")
    if len(names) == 2 and names[0] == "loss":
        names.pop()  # the total of a single term is that term
    return {
        name: np.array([step.losses.get(name, np.nan) for step in history.steps], dtype=float) for name in names
    }


def _is_log(terms: dict[str, Array]) -> bool:
    values = np.concatenate([values[np.isfinite(values)] for values in terms.values()])
    return bool(len(values) and values.min() > 0 and values.max() / values.min() > LOG_FROM)


def _figures_of(values: Array) -> list[Cell]:
    known = values[np.isfinite(values)]
    return [number(fmt.significant(float(v))) for v in (known[0], known.min(), known.max(), known[-1])]


def _tells(values: Array) -> str:
    first, low, high, last = (cell.text for cell in _figures_of(values))
    return f"first {first}, lowest {low}, highest {high}, last {last}."


def _smoothing(steps: int) -> str:
    window = window_for(steps)
    if window == 1:
        return "Every step as recorded."
    most = min(steps, charts.MOST_POINTS)
    return f"Moving average over {window} of {fmt.count(steps)} steps; {most} points are drawn."


def _words(name: str) -> str:
    """A record's key as words: `head_accuracy` -> `head accuracy`; the total is named for what it is."""
    return "total" if name == "loss" else name.replace("_", " ")
