"""The model card of a run: what a stranger must know of a model, from the facts that the report has.

Metadata as the Hugging Face Hub reads it: https://huggingface.co/docs/hub/model-cards. What nobody said or
measured is left out there, and said to be unknown in the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from dskd_export.bundle.manifest import LicenseFacts, Licenses
from dskd_export.documents.benchmark import BenchmarkRow
from dskd_export.documents.training import TrainingDocument
from dskd_export.errors import DataError
from dskd_export.files.json_text import first_fault
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import Block, Cell, Note, Section, Table, code, missing, number, verdict_cell
from dskd_export.report.decision import decide, student_accuracy, teacher_accuracy
from dskd_export.report.load import Run
from dskd_export.report.render import environment

_ROWS = 40  # of the table of latencies; a card is no report


@dataclass(frozen=True)
class Card:
    """What the template fills in; all plain text."""

    name: str
    summary: str
    verdict: str
    decision: str
    python: str
    input: str
    has_bundle: bool
    sections: Sequence[Section]
    warnings: Sequence[str] = ()


def model_card(run: Run, *, name: str, stale: Sequence[str] = ()) -> str:
    """A model card in Markdown.

    Args:
        run: with a distilled student at least.
        name: of the model; `OWNER/NAME` where it will lie on the Hub.
        stale: stages whose results were made from files that have changed since.

    Raises:
        DataError: the run holds no student.
    """
    student = run.student
    if student is None:
        raise DataError(f"{run.folder} holds no student: distill.json is missing.", "Run: dskd-compress distill")
    made = decide(run, stale)
    card = Card(
        name=name,
        summary=_summary(student),
        verdict=made.verdict,
        decision=f"{made.sentence} {made.reason}".strip(),
        python=_python(name, student),
        input=_input(run),
        has_bundle=run.manifest is not None,
        sections=(_accuracy(run), _precisions(run), _latency(run), _training(student), _limits(), _licences(run)),
        warnings=[f"the results of {', '.join(stale)} are stale: what they were made from has changed since."]
        if stale
        else [],
    )
    metadata = yaml.safe_dump(_metadata(run, student, name), sort_keys=False, allow_unicode=True)
    text = environment().get_template("model_card.md.j2").render(card=card, metadata=metadata)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _metadata(run: Run, student: TrainingDocument, name: str) -> dict[str, Any]:
    licences = _licenses(run.manifest)
    tags = ["image-classification", "timm", "onnx", "knowledge-distillation", student.method, "dskd-compress"]
    accuracy = student_accuracy(run)
    metadata: dict[str, Any] = {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": list(dict.fromkeys(tags)),
    }
    if licences is not None and licences.weights.name is not None:
        metadata["license"] = licences.weights.name.lower()
    if accuracy is not None:
        measured = accuracy.accuracy
        metrics = [{"type": "accuracy", "name": "top-1", "value": round(measured.top1.value, 4)}]
        if measured.top5 is not None:
            metrics.append({"type": "accuracy", "name": "top-5", "value": round(measured.top5.value, 4)})
        data = {"type": "image-folder", "name": student.data.source, "split": "validation"}
        task = {"type": "image-classification", "name": "Image classification"}
        metadata["model-index"] = [
            {
                "name": name.rpartition("/")[2],
                "results": [{"task": task, "dataset": data, "metrics": metrics}],
            }
        ]
    return metadata


def _summary(student: TrainingDocument) -> str:
    teacher = "" if student.teacher is None else f", distilled from {student.teacher.name} by {student.method}"
    classes = len(student.data.classes)
    return (
        f"An image classifier of {classes} classes: timm's {student.model.name}{teacher} with dskd-compress. "
        f"{fmt.scaled(student.model.parameters)} parameters, {fmt.megabytes(student.model.size_mb)} in fp32. "
        "What was needed for training alone is not in it: it is the plain timm model."
    )


def _python(name: str, student: TrainingDocument) -> str:
    source = f"hf-hub:{name}" if "/" in name else "local-dir:FOLDER"
    return (
        "import timm\n\n"
        f"model = timm.create_model({json.dumps(source)}, pretrained=True).eval()\n"
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))"
    )


def _input(run: Run) -> str:
    spec = run.spec
    if spec is None:
        assert run.student is not None
        return f"{run.student.model.input_size[1]} x {run.student.model.input_size[2]} pixels"
    return (
        f"{spec.height} x {spec.width} pixels, resized by {spec.interpolation} with a crop of "
        f"{spec.crop_pct:g} ({spec.crop_mode}), mean {_numbers(spec.mean)}, "
        f"standard deviation {_numbers(spec.std)}"
    )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _accuracy(run: Run) -> Section:
    rows = []
    for who, measured in (("teacher", teacher_accuracy(run)), ("this model", student_accuracy(run))):
        if measured is None:
            rows.append([Cell(who), missing("not measured"), number("–"), number("–"), Cell("")])
            continue
        accuracy = measured.accuracy
        top5 = number("–") if accuracy.top5 is None else number(fmt.percent_interval(accuracy.top5))
        rows.append(
            [
                Cell(who),
                number(fmt.percent_interval(accuracy.top1)),
                top5,
                number(fmt.count(accuracy.images)),
                Cell(measured.source),
            ]
        )
    columns = ("", "top-1 (95 % interval)", "top-5", "images", "measured")
    note = "On the validation images, on which the kept epoch was chosen as well: slightly optimistic for both."
    return Section("accuracy", "Accuracy", [Table("card-accuracy", "Accuracy", columns, rows, note=note)])


def _precisions(run: Run) -> Section:
    title = "Precisions"
    if run.validation is None:
        return Section("precisions", title, [Note("Not validated: dskd-compress validate was not run.")])
    rows = []
    for judgement in run.validation.judgements:
        paired = judgement.accuracy
        drop = (
            missing("not measured")
            if paired is None
            else number(
                f"{fmt.points(paired.top1_drop.value)} ({fmt.points(paired.top1_drop.low)} to "
                f"{fmt.points(paired.top1_drop.high)})"
            )
        )
        size = number("–") if judgement.size_mb is None else number(fmt.megabytes(judgement.size_mb))
        type_ = missing("not run") if judgement.computed_in is None else Cell(judgement.computed_in)
        verdict = verdict_cell(judgement.verdict)
        rows.append([Cell(judgement.precision), Cell(judgement.runner), type_, size, drop, verdict])
    columns = ("precision", "runner", "computed in", "file", "top-1 lost (points, 95 % interval)", "verdict")
    reference = f"Against {run.validation.reference}, on the same images."
    return Section("precisions", title, [Table("card-precisions", title, columns, rows, note=reference)])


def _latency(run: Run) -> Section:
    title = "Measured latency"
    if run.benchmark is None:
        return Section("latency", title, [Note("Not measured: dskd-compress benchmark was not run.")])
    rows = [row for row in run.benchmark.rows if row.part == "engine" and row.model == "student" and row.latency]
    device = run.benchmark.provenance.device
    blocks: list[Block] = [Note(f"On {device.gpu or device.cpu}, {device.cores} cores, {device.platform}.")]
    columns = ("runner", "batch", "p50", "p99", "images/s", "energy (mJ/image)", "")
    cells = [_latency_row(row) for row in rows[:_ROWS]]
    left = f" {len(rows) - _ROWS} more are in benchmark.json." if len(rows) > _ROWS else ""
    note = f"Arrays in, logits out, 95 % intervals in brackets where there are enough calls.{left}"
    return Section("latency", title, [*blocks, Table("card-latency", title, columns, cells, note=note)])


def _latency_row(row: BenchmarkRow) -> list[Cell]:
    assert row.latency is not None  # the caller selects measured rows
    latency, energy = row.latency, row.energy_per_image_mj

    def time(name: str, value: float) -> Cell:
        interval = latency.intervals_ms.get(name)
        range_ = f" ({fmt.significant(interval.low)}–{fmt.significant(interval.high)})" if interval else ""
        return number(fmt.milliseconds(value) + range_)

    return [
        Cell(fmt.runner_name(row.runner, row.provider, row.precision, row.threads)),
        number(str(row.batch)),
        time("p50", latency.p50_ms),
        time("p99", latency.p99_ms),
        number("–" if row.throughput_images_per_s is None else fmt.significant(row.throughput_images_per_s)),
        missing(row.energy_reason or "not measured") if energy is None else number(fmt.significant(energy.value)),
        Cell("steady" if latency.stable else f"UNSTABLE: {latency.reason}"),
    ]


def _training(student: TrainingDocument) -> Section:
    data, provenance = student.data, student.provenance
    facts = [
        ("method", f"{student.method}, {_settings(student.method_settings)}"),
        ("teacher", "none" if student.teacher is None else f"{student.teacher.name}, {student.teacher.weights}"),
        ("data", f"{data.source}, {_count(data.train_images)} for training, {_count(data.val_images)} held out"),
        ("epochs", f"{student.epochs}; epoch {student.best_epoch + 1} was kept"),
        ("seed", str(provenance.seed)),
        ("machine", provenance.device.gpu or provenance.device.cpu),
        ("versions", ", ".join(f"{name} {version}" for name, version in provenance.versions.items())),
    ]
    hashes = [
        ("the data", data.sha256),
        ("student.safetensors", student.model.sha256 or "not recorded"),
        ("the recipe", provenance.recipe_sha256),
    ]
    rows = [[Cell(name), Cell(text)] for name, text in facts]
    rows += [[Cell(f"sha256 of {name}"), code(text)] for name, text in hashes]
    return Section("training", "Training", [Table("card-training", "Training", ("", ""), rows)])


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items() if key != "name")


def _count(images: int | None) -> str:
    return "an unknown number" if images is None else fmt.count(images)


def _limits() -> Section:
    text = (
        "It knows the classes that it was trained on and gives one of them for any image. Its accuracy holds for "
        "images like those that it was measured on. One training with one seed stands behind it unless the table "
        "says otherwise. DSKD (arXiv 2602.02107) is rebuilt here independently, from the paper's abstract and "
        "opening; no parity with the authors' results is claimed."
    )
    return Section("limits", "Limits", [Note(text)])


def _licences(run: Run) -> Section:
    licences = _licenses(run.manifest)
    if licences is None:
        return Section("licences", "Licences", [Note("Not recorded: the run holds no bundle.")])
    rows = [
        [Cell(what), *_licence(facts)]
        for what, facts in (
            ("these weights", licences.weights),
            ("the weights that the student started from", licences.student_start),
            ("the teacher's weights", licences.teacher),
        )
    ]
    return Section("licences", "Licences", [Table("card-licences", "Licences", ("of", "licence", "says"), rows)])


def _licence(facts: LicenseFacts) -> Iterator[Cell]:
    yield missing("unknown") if facts.name is None else Cell(facts.name)
    yield Cell(facts.source)


def _licenses(manifest: Mapping[str, Any] | None) -> Licenses | None:
    found = ((manifest or {}).get("provenance") or {}).get("licenses")
    try:
        return None if found is None else Licenses.model_validate(found)
    except ValidationError as error:
        raise DataError(
            f"bundle/manifest.json: provenance.licenses.{first_fault(error)}.", "Run again: dskd-compress export"
        ) from error
