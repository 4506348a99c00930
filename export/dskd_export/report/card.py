"""Write the model card of a run, from the facts that the report has.

Metadata as the Hugging Face Hub reads it: https://huggingface.co/docs/hub/model-cards. Unknown
facts are left out there, and named as unknown in the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
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
from dskd_export.report.choices import Source, choices
from dskd_export.report.decision import decide
from dskd_export.report.first_screen import table_of_run
from dskd_export.report.load import Run
from dskd_export.report.render import environment
from dskd_export.report.sections import mistakes
from dskd_export.report.tables import Cell, Table, code, make_table, missing, number

_ROWS = 40  # of the table of latencies; a card is no report
_CLASSES = 20  # names of classes


@dataclass(frozen=True)
class Card:
    """What the template fills in; all plain text."""

    name: str
    summary: str
    verdict: str
    sentence: str
    table: Table
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
    found = choices([Source(name, run)])
    made = decide(run, stale, found)
    card = Card(
        name=name,
        summary=_summary(student),
        verdict=made.verdict,
        sentence=made.sentence,
        table=table_of_run(run, found, made.reason, stale=made.verdict == "STALE"),
        python=_python(name, run),
        input=_input(run),
        has_bundle=run.manifest is not None,
        sections=(
            *_accuracy(run),
            _latency(run),
            _training(student),
            _limits(student),
            _licences(run),
            _provenance(student),
        ),
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
    # timm's reader of the Hub's data sets takes their names.
    dataset = student.data.source.removeprefix("hfds/") if student.data.source.startswith("hfds/") else None
    if dataset is not None:
        metadata["datasets"] = [dataset]
    if accuracy is not None:
        metadata["metrics"] = ["accuracy"]
        found = {"top-1": accuracy.accuracy.top1, "top-5": accuracy.accuracy.top5}
        metrics = [
            {"type": "accuracy", "name": label, "value": round(measured.value, 4), "verified": False}
            for label, measured in found.items()
            if measured is not None
        ]
        kind = dataset or "image-folder"
        data = {"type": kind, "name": _data_name(student), "split": "validation"}
        task = {"type": "image-classification", "name": "Image classification"}
        metadata["model-index"] = [
            {
                "name": name.rpartition("/")[2],
                "results": [{"task": task, "dataset": data, "metrics": metrics}],
            }
        ]
    return metadata


def _data_name(student: TrainingDocument) -> str:
    """The data's name without the folders of the machine that it lies on."""
    return PurePath(student.data.source).name or student.data.source


def _summary(student: TrainingDocument) -> str:
    teacher = "" if student.teacher is None else f", distilled from {student.teacher.name} by {student.method}"
    classes = len(student.data.classes)
    return (
        f"An image classifier of {classes} classes: timm's {student.model.name}{teacher} with dskd-compress. "
        f"{fmt.scaled(student.model.parameters)} parameters, {fmt.megabytes(student.model.size_mb)} in fp32. "
        "Training-only modules are not in it: it is the plain timm model."
    )


def _python(name: str, run: Run) -> str:
    source = f"hf-hub:{name}" if "/" in name else "local-dir:FOLDER"
    lines = [
        "import timm\n",
        f"model = timm.create_model({json.dumps(source)}, pretrained=True).eval()",
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
    ]
    if run.spec is not None and run.spec.exif == "apply":  # timm's config has no key for it
        lines[0] = "import timm\nfrom PIL import Image, ImageOps\n"
        lines.append('image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")')
    return "\n".join(lines)


def _input(run: Run) -> str:
    spec = run.spec
    if spec is None:
        assert run.student is not None
        return f"{run.student.model.input_size[1]} x {run.student.model.input_size[2]} pixels"
    upright = ""
    if spec.exif == "apply":
        upright = ". Photos are first turned upright by the orientation in their EXIF; timm does not do that"
    return (
        f"{spec.height} x {spec.width} pixels, resized by {spec.interpolation} with a crop of "
        f"{spec.crop_pct:g} ({spec.crop_mode}), mean {_numbers(spec.mean)}, "
        f"standard deviation {_numbers(spec.std)}{upright}"
    )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _accuracy(run: Run) -> Iterator[Section]:
    """The accuracy by class, of a run that was validated with labels; else what the training measured."""
    blocks = (
        mistakes.tabulate_classes(run.validation.mistakes) if run.validation and run.validation.mistakes else []
    )
    if not blocks:
        note = "Not validated: what the training measured is in the metadata."
        blocks = [] if run.validation is not None else [Note(note)]
    if blocks:
        yield Section("accuracy", "Accuracy by class", blocks)


def _latency(run: Run) -> Section:
    title = "Measured latency"
    benchmark = run.benchmark
    rows = [] if benchmark is None else [r for r in benchmark.rows if r.part == "engine" and r.model == "student"]
    timed = [row for row in rows if row.latency is not None]
    if benchmark is None or not timed:
        return Section("latency", title, [Note("Not measured.")])
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
    data = student.data
    facts = {
        "method": student.method,
        "teacher": "none" if student.teacher is None else student.teacher.name,
        "data": f"{_data_name(student)}: {_count(data.train_images)} images for training, "
        f"{_count(data.val_images)} held out",
        "classes": f"{len(data.classes)}: {', '.join(data.classes[:_CLASSES])}"
        + (", ..." if len(data.classes) > _CLASSES else ""),
        "epochs": f"{student.epochs}; epoch {student.best_epoch + 1} was kept",
    }
    rows = [{"fact": Cell(name), "value": Cell(text)} for name, text in facts.items()]
    return Section("training", "Training", [make_table("card-training", "Training", rows)])


def _provenance(student: TrainingDocument) -> Section:
    """What a quoted number has to carry."""
    provenance = student.provenance
    facts = {
        "seed": str(provenance.seed),
        "machine": provenance.device.gpu or provenance.device.cpu,
        "versions": ", ".join(f"{name} {version}" for name, version in provenance.versions.items()),
    }
    hashes = {"sha256 of the data": student.data.sha256, "sha256 of the recipe": provenance.recipe_sha256}
    rows = [{"fact": Cell(name), "value": Cell(text)} for name, text in facts.items()]
    rows += [{"fact": Cell(name), "value": code(text)} for name, text in hashes.items()]
    return Section("provenance", "Provenance", [make_table("card-provenance", "Provenance", rows)])


def _count(images: int | None) -> str:
    return "an unknown number" if images is None else fmt.count(images)


def _limits(student: TrainingDocument) -> Section:
    text = (
        "The model assigns one of its training classes to any image. Its accuracy holds for images like those it "
        "was measured on, which also chose the epoch. It comes from one training with one seed."
    )
    if student.method == "dskd":
        text += (
            " DSKD (arXiv 2602.02107) is reimplemented independently, from the paper's abstract and opening. No "
            "parity with the authors' results is claimed."
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
