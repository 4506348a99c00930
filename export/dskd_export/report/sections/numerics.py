"""Whether the exported model is still the same function: the gate, parity, preprocessing."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dskd_export.bundle.golden import Golden
from dskd_export.documents.base import Interval
from dskd_export.documents.validation import Check, Judgement, PairedAccuracy, Parity, ValidationDocument
from dskd_export.errors import DataError
from dskd_export.files.bounded import read_bounded
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import Block, Note, Picture, Pictures, Section, missing_file
from dskd_export.report.load import Run
from dskd_export.report.tables import Cell, Table, make_table, missing, number, verdict_cell
from dskd_export.runtime.preprocess import pixels_from_input
from dskd_export.spec import ModelSpec, describe_exif
from dskd_export.validation.verdicts import iter_checks, list_causes

_SIGN = {"<=": "≤", ">=": "≥", ">": ">"}


def section_from_run(run: Run) -> Section:
    """Show the validation with its limits, and the preprocessing that the device has to repeat."""
    blocks: list[Block] = []
    if run.validation is None:
        blocks.append(missing_file("validation.json", "validate", "The checks of the exported model"))
    else:
        blocks += _validation(run.validation)
        blocks += _worst_classes(run, run.validation)
    if run.spec is None:
        blocks.append(missing_file("bundle/spec.json", "export", "What the exported model expects"))
    else:
        blocks.append(_spec_table(run.spec))
    return Section("numerics", "Numerics", blocks)


def _worst_classes(run: Run, validation: ValidationDocument) -> list[Block]:
    """Show the classes that lose most, as far as the bundle's golden images have them."""
    lost = [
        (one.runner, one.accuracy.worst_class)
        for one in validation.judgements
        if one.accuracy is not None and one.accuracy.worst_class is not None and one.accuracy.worst_class.lost
    ]
    if not lost:
        return []
    golden = None if run.spec is None else golden_of(run.folder / "bundle", run.spec)
    blocks: list[Block] = []
    for name in dict.fromkeys(worst.name for _, worst in lost):
        runners = ", ".join(runner for runner, worst in lost if worst.name == name)
        items = [] if golden is None or run.spec is None else pictures_of(golden, run.spec, name)
        title = f"Class {name}, the worst class of {runners}"
        if items:
            blocks.append(Pictures(title, items))
        else:
            blocks.append(Note(f"{title}: the bundle's golden images have none of it.", "missing"))
    return blocks


def _validation(document: ValidationDocument) -> list[Block]:
    blocks: list[Block] = []
    for verdict, what in (("FAIL", "Failed"), ("NOT SHOWN", "Not shown")):
        names = [f"{where}: {check.name}" for where, check in iter_checks(document) if check.verdict == verdict]
        if names:
            blocks.append(Note(f"{what}: {', '.join(names)}.", "warning"))
    blocks += _student(document)
    blocks += [Note(f"Likely cause: {cause}.", "warning") for cause in list_causes(document)]
    losses = [_loss(one.runner, one.accuracy) for one in document.judgements if one.accuracy is not None]
    accuracies = [
        {
            "runner": Cell(runner),
            "top-1": number(fmt.percent_interval(value.top1)),
            "top-5": number(fmt.percent_interval(value.top5)) if value.top5 else missing("fewer than six classes"),
            "images": number(fmt.count(value.images)),
        }
        for runner, value in document.accuracy.items()
    ]
    for id, title, rows, note in (
        (
            "verdict-table",
            f"Verdict by model, against {document.reference}",
            [_verdict(document, one) for one in document.judgements],
            "",
        ),
        (
            "loss-table",
            f"Accuracy lost against {document.reference}",
            losses,
            "Lost: right in the reference, wrong in the model. Intervals: Tango's for paired shares; Wilson's for "
            "the same top-1. Worst class: the largest lower bound of the loss. Calibration error: reference → "
            "model, 15 bins.",
        ),
        (
            "checks-table",
            "Checks of the gate",
            [_check(where, check) for where, check in iter_checks(document)],
            "Where there is a bound, the bound decides. NOT SHOWN: the value is within the limit, but too few "
            "images were measured to show it.",
        ),
        (
            "parity-table",
            "Parity of logits",
            [_parity(parity) for one in document.judgements for parity in one.parity],
            "On the same inputs. Scale: largest absolute logit of the reference.",
        ),
        ("accuracy-table", "Accuracy by runner", accuracies, "With 95 % Wilson score intervals."),
    ):
        if rows:
            blocks.append(make_table(id, title, rows, note))
    pixels = document.preprocess
    if pixels is not None:
        facts = {
            "images": fmt.count(pixels.images),
            "largest pixel difference (of 255)": fmt.significant(pixels.max_abs_pixel),
            "largest difference after normalisation": fmt.significant(pixels.max_abs_normalised),
            "differing pixels": fmt.count(pixels.differing_pixels),
        }
        rows = [{"measure": Cell(name), "value": number(text)} for name, text in facts.items()]
        blocks.append(make_table("preprocess-table", "Preprocessing without torch against timm's", rows))
    return blocks


def _student(document: ValidationDocument) -> list[Block]:
    """Compare the student with its teacher and with the commonest class."""
    student = document.student
    if student is None:
        return []
    rows = []
    measured = document.accuracy.get(document.reference)
    for who, accuracy in (("student", measured), ("teacher", student.teacher_accuracy)):
        if accuracy is not None:
            top1 = number(fmt.percent_interval(accuracy.top1))
            rows.append({"model": Cell(who), "top-1": top1, "images": number(fmt.count(accuracy.images))})
    if student.commonest_class is not None and student.commonest_share is not None:
        images = number(fmt.count(measured.images)) if measured is not None else missing("not counted")
        who = f"always '{student.commonest_class}', the commonest class"
        rows.append({"model": Cell(who), "top-1": number(fmt.percent(student.commonest_share)), "images": images})
    if not rows:
        return [Note(f"The student is not judged: {student.reason}.", "missing")]
    note = f"{student.verdict}: {student.reason}. In brackets 95 % intervals."
    return [make_table("student-table", "The student against its teacher", rows, note)]


def _verdict(document: ValidationDocument, judgement: Judgement) -> dict[str, Cell]:
    found = document.accuracy.get(judgement.runner)
    top1 = missing("no labelled images") if found is None else number(fmt.percent_interval(found.top1))
    computed_in = Cell(judgement.computed_in or "not recorded", "text" if judgement.computed_in else "missing")
    if judgement.verdict == "NOT RUN":
        top1 = computed_in = Cell("–", "missing")
    elif judgement.native is False:
        computed_in = Cell(computed_in.text, computed_in.kind, judgement.native_reason)
    reason = "" if judgement.verdict == "PASS" else judgement.reason
    return {
        "model": Cell(judgement.runner),
        "verdict": verdict_cell(judgement.verdict, reason=reason),
        "top-1": top1,
        "size": missing("not a file") if judgement.size_mb is None else number(fmt.megabytes(judgement.size_mb)),
        "computed in": computed_in,
    }


def _loss(runner: str, paired: PairedAccuracy) -> dict[str, Cell]:
    errors = (paired.reference_calibration_error, paired.calibration_error)
    worst = paired.worst_class
    return {
        "model": Cell(runner),
        "top-1 lost (points, 95 %)": number(_points_lost(paired.top1_drop)),
        "lost, gained": number(
            f"{fmt.count(paired.lost)}, {fmt.count(paired.gained)} of {fmt.count(paired.images)}"
        ),
        "McNemar p": number(paired.mcnemar_p),
        "same top-1": number(fmt.percent_interval(paired.agreement)),
        "worst class": missing(f"no class has enough images; the largest has {paired.largest_class_images}")
        if worst is None
        else Cell(f"{worst.name}: {worst.lost} of {worst.images} lost, {worst.gained} gained"),
        "calibration error": number(" → ".join(fmt.significant(error) for error in errors)),
    }


def _points_lost(drop: Interval) -> str:
    value, low, high = (f"{100 * share:.2f}".replace("-", "−") for share in (drop.value, drop.low, drop.high))
    return f"{value} ({low} to {high})"


def _check(where: str, check: Check) -> dict[str, Cell]:
    return {
        "of": Cell(where),
        "check": Cell(check.name),
        "value": number(_share_digits(check.value)) if check.value is not None else missing("not measured"),
        "95 % bound": Cell("") if check.bound is None else number(_share_digits(check.bound)),
        "limit": number(f"{_SIGN[check.comparison]} {fmt.exact(check.limit)}"),
        "verdict": verdict_cell(check.verdict, reason=check.detail),
    }


def _share_digits(value: float) -> str:
    """Three digits, and as many of a share that is nearly 1 as distinguish it from 1."""
    if value == round(value):
        return f"{value:g}"
    return f"{value:.8f}".rstrip("0").rstrip(".") if 0.999 < value < 1 else fmt.significant(value)


def _parity(parity: Parity) -> dict[str, Cell]:
    top5 = parity.top5_agreement
    return {
        "candidate against reference": Cell(f"{parity.candidate} against {parity.reference}"),
        "batch": number(str(parity.batch)),
        "images": number(fmt.count(parity.images)),
        "max abs": number(parity.max_abs),
        "max abs / scale": number(parity.max_abs_relative),
        "mean abs / scale": number(parity.mean_abs_relative),
        "lowest cosine": number(f"{parity.cosine_min:.7f}"),
        "highest KL (nats)": number(parity.kl_max),
        "same top-1": number(fmt.percent(parity.top1_agreement)),
        "same top-5": missing("fewer than six classes") if top5 is None else number(fmt.percent(top5)),
        "finite": Cell("yes") if parity.finite else Cell("no", "fail", "NaN or Inf in the logits"),
    }


def _spec_table(spec: ModelSpec) -> Table:
    shape = " × ".join(map(str, spec.input_shape(1)[1:]))
    facts = {
        "input": f"{spec.input_name}: batch × {shape}, RGB, {spec.input_dtype}",
        "output": f"{spec.output_name}: batch × {len(spec.classes)}",
        "mean, std (of pixels in 0–1)": "; ".join(
            ", ".join(f"{value:.4g}" for value in values) for values in (spec.mean, spec.std)
        ),
        "resize": f"{spec.interpolation}, crop {spec.crop_mode}, crop share {fmt.exact(spec.crop_pct)}",
        "orientation in EXIF": describe_exif(spec.exif),
        "classes": f"{len(spec.classes)}: {', '.join(spec.classes)}",
        "ONNX operator set": str(spec.opset),
    }
    rows = [{"fact": Cell(label), "value": Cell(text)} for label, text in facts.items()]
    return make_table("spec-table", "What the exported model expects", rows)


_SIDE = 96  # pixels on the page
_MOST = 4  # of one class
_MAX_BYTES = 256 << 20


def golden_of(bundle: Path, spec: ModelSpec) -> Golden | None:
    """Read the bundle's golden images; None where they are missing or belong to another model."""
    try:
        return Golden.from_bytes(read_bounded(bundle / "golden.npz", _MAX_BYTES), spec, "golden.npz")
    except (DataError, OSError):
        return None


def pictures_of(golden: Golden, spec: ModelSpec, name: str) -> list[Picture]:
    """Draw a few golden images of a class, as the model gets them, with the reference's answer to each.

    Args:
        golden: images and logits.
        spec: how the images were prepared.
        name: of the class.
    """
    label = spec.classes.index(name) if name in spec.classes else -1
    found = np.flatnonzero(golden.labels == label)[:_MOST]
    taken_for = [spec.classes[int(golden.logits[index].argmax())] for index in found]
    return [
        Picture(
            _png(pixels_from_input(golden.input[index], spec)),
            f"image of {name}, classified as {other}",
        )
        for index, other in zip(found, taken_for, strict=True)
    ]


def _png(pixels: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
