"""Write the model card of a run, from the facts that the report has.

Metadata as the Hugging Face Hub reads it: https://huggingface.co/docs/hub/model-cards. Unknown
facts are left out there, and named as unknown in the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from dskd_export.bundle.manifest import Licenses
from dskd_export.documents.benchmark import BenchmarkRow
from dskd_export.documents.training import TrainingDocument
from dskd_export.errors import DataError
from dskd_export.files.json_text import first_fault
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import Note, Section
from dskd_export.report.decision import decide
from dskd_export.report.load import Run
from dskd_export.report.render import environment
from dskd_export.report.tables import Cell, code, make_table, missing, number, verdict_cell

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
    """Write the model card of a run in Markdown.

    Args:
        run: with a distilled student at least.
        name: of the model; `OWNER/NAME` for the Hub.
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
        warnings=[f"the results of {', '.join(stale)} are stale: their inputs have changed since."]
        if stale
        else [],
    )
    metadata = yaml.safe_dump(_metadata(run, student, name), sort_keys=False, allow_unicode=True)
    text = environment().get_template("model_card.md.j2").render(card=card, metadata=metadata)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _metadata(run: Run, student: TrainingDocument, name: str) -> dict[str, Any]:
    licences = _licenses(run.manifest)
    tags = ["image-classification", "timm", "onnx", "knowledge-distillation", student.method, "dskd-compress"]
    accuracy = run.student_accuracy
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
        "Training-only modules are not in it: it is the plain timm model."
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
    for who, measured in (("teacher", run.teacher_accuracy), ("this model", run.student_accuracy)):
        found = None if measured is None else measured.accuracy
        top5 = None if found is None else found.top5
        rows.append(
            {
                "model": Cell(who),
                "top-1 (95 % interval)": missing("not measured")
                if found is None
                else number(fmt.percent_interval(found.top1)),
                "top-5": number(top5 and fmt.percent_interval(top5)),
                "images": number(None if found is None else fmt.count(found.images)),
                "measured": Cell(measured.source if measured is not None else ""),
            }
        )
    note = "On the validation images, which also chose the epoch: slightly optimistic for both."
    return Section("accuracy", "Accuracy", [make_table("card-accuracy", "Accuracy", rows, note)])


def _precisions(run: Run) -> Section:
    title = "Precisions"
    if run.validation is None or not run.validation.judgements:
        return Section("precisions", title, [Note("Not validated: dskd-compress validate was not run.")])
    rows = []
    for one in run.validation.judgements:
        drop = None if one.accuracy is None else one.accuracy.top1_drop
        lost = drop and f"{fmt.points(drop.value)} ({fmt.points(drop.low)} to {fmt.points(drop.high)})"
        rows.append(
            {
                "precision": Cell(one.precision),
                "runner": Cell(one.runner),
                "computed in": missing("not run") if one.computed_in is None else Cell(one.computed_in),
                "file": number(None if one.size_mb is None else fmt.megabytes(one.size_mb)),
                "top-1 lost (points, 95 % interval)": number(lost, "not measured"),
                "verdict": verdict_cell(one.verdict),
            }
        )
    note = f"Against {run.validation.reference}, on the same images."
    return Section("precisions", title, [make_table("card-precisions", title, rows, note)])


def _latency(run: Run) -> Section:
    title = "Measured latency"
    benchmark = run.benchmark
    rows = [] if benchmark is None else [r for r in benchmark.rows if r.part == "engine" and r.model == "student"]
    timed = [row for row in rows if row.latency is not None]
    if benchmark is None or not timed:
        return Section("latency", title, [Note("Not measured: dskd-compress benchmark was not run.")])
    device = benchmark.provenance.device
    left = f" {len(timed) - _ROWS} more are in benchmark.json." if len(timed) > _ROWS else ""
    note = f"Arrays in, logits out, 95 % intervals in brackets where there are enough calls.{left}"
    return Section(
        "latency",
        title,
        [
            Note(f"On {device.gpu or device.cpu}, {device.cores} cores, {device.platform}."),
            make_table("card-latency", title, [_latency_row(row) for row in timed[:_ROWS]], note),
        ],
    )


def _latency_row(row: BenchmarkRow) -> dict[str, Cell]:
    latency = row.latency
    assert latency is not None  # the caller selects measured rows
    energy = row.energy_per_image_mj
    return {
        "runner": Cell(fmt.runner_of(row)),
        "batch": number(str(row.batch)),
        "p50 (ms)": number(latency.intervals_ms.get("p50") or latency.p50_ms),
        "p99 (ms)": number(latency.intervals_ms.get("p99") or latency.p99_ms),
        "images/s": number(row.throughput_images_per_s),
        "energy (mJ/image)": number(energy and energy.value, row.energy_reason or "not measured"),
        "state": Cell("steady") if latency.stable else Cell("UNSTABLE", "stale", latency.reason),
    }


def _training(student: TrainingDocument) -> Section:
    data, provenance = student.data, student.provenance
    facts = {
        "method": f"{student.method}, {_settings(student.method_settings)}",
        "teacher": "none" if student.teacher is None else f"{student.teacher.name}, {student.teacher.weights}",
        "data": f"{data.source}, {_count(data.train_images)} for training, {_count(data.val_images)} held out",
        "epochs": f"{student.epochs}; epoch {student.best_epoch + 1} was kept",
        "seed": str(provenance.seed),
        "machine": provenance.device.gpu or provenance.device.cpu,
        "versions": ", ".join(f"{name} {version}" for name, version in provenance.versions.items()),
    }
    hashes = {
        "sha256 of the data": data.sha256,
        "sha256 of student.safetensors": student.model.sha256 or "not recorded",
        "sha256 of the recipe": provenance.recipe_sha256,
    }
    rows = [{"fact": Cell(name), "value": Cell(text)} for name, text in facts.items()]
    rows += [{"fact": Cell(name), "value": code(text)} for name, text in hashes.items()]
    return Section("training", "Training", [make_table("card-training", "Training", rows)])


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items() if key != "name")


def _count(images: int | None) -> str:
    return "an unknown number" if images is None else fmt.count(images)


def _limits() -> Section:
    text = (
        "The model assigns one of its training classes to any image. Its accuracy holds for images like those it "
        "was measured on. It comes from one training with one seed unless the table shows more. DSKD (arXiv "
        "2602.02107) is reimplemented here independently, from the paper's abstract and opening. No parity with "
        "the authors' results is claimed."
    )
    return Section("limits", "Limits", [Note(text)])


def _licences(run: Run) -> Section:
    licences = _licenses(run.manifest)
    if licences is None:
        return Section("licences", "Licences", [Note("Not recorded: the run holds no bundle.")])
    rows = [
        {
            "weights": Cell(what),
            "licence": missing("unknown") if facts.name is None else Cell(facts.name),
            "source": Cell(facts.source),
        }
        for what, facts in (
            ("this model", licences.weights),
            ("the student's initial weights", licences.student_start),
            ("the teacher", licences.teacher),
        )
    ]
    return Section("licences", "Licences", [make_table("card-licences", "Licences", rows)])


def _licenses(manifest: Mapping[str, Any] | None) -> Licenses | None:
    found = ((manifest or {}).get("provenance") or {}).get("licenses")
    try:
        return None if found is None else Licenses.model_validate(found)
    except ValidationError as error:
        raise DataError(
            f"bundle/manifest.json: provenance.licenses.{first_fault(error)}.", "Run again: dskd-compress export"
        ) from error
