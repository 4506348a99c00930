"""Judge models and the student from what was measured, with the likely cause of a failure.

The student is compared with its teacher, and with always answering the commonest class. A model is compared with
its reference.

Shape suffixes: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_export.bundle import Bundle
from dskd_export.bundle.golden import Golden
from dskd_export.documents.validation import Check, Judgement, PairedAccuracy, Parity, StudentJudgement
from dskd_export.runtime.loader import FULL
from dskd_export.runtime.runner import Array
from dskd_export.settings import PrecisionBudget, ValidateSettings
from dskd_export.validation.accuracy import accuracy_of, compare_accuracy, measure_drop
from dskd_export.validation.batches import GOLDEN
from dskd_export.validation.causes import explain_logits
from dskd_export.validation.checks import (
    NO_IMAGES,
    check_budget,
    check_drop,
    check_finite,
    check_golden,
    check_limits,
    check_share,
    not_judged,
)
from dskd_export.validation.models import BATCH, LoadedModel
from dskd_export.validation.parity import GoldenSearch, compare_outputs
from dskd_export.validation.verdicts import reason_of, unproven, verdict_of

AGAINST_TEACHER = "drop vs teacher"
AGAINST_COMMONEST = "vs commonest class"
NO_TEACHER_IN_BUNDLE = "a bundle holds no teacher, the run does"

# Rows of logits that are enough to see what a failure looks like.
_ROWS = 512
# Checks that compare logits of the same inputs, whatever the device's preprocessing makes of an image.
_SAME_INPUT = {"max abs / scale", "mean abs / scale", "cosine", "KL", "finite logits"}


@dataclass(frozen=True)
class Measured:
    """What the models gave.

    Attributes:
        labels: int64 [N]; None: there is no accuracy, as `no_labels` says.
        logits: runner -> logits [N, K], each runner on its own input; the reference first.
        same_input: the reference's logits [N, K] of the inputs that the candidates got.
        first_inputs: the device's input of the first images.
        golden: the bundle's golden images, and what was seen of them among the images.
        differing_pixels: between the device's input and the reference's own; 0: none, or both are one.
        no_labels: why there is no accuracy.
    """

    labels: NDArray[np.int64] | None
    logits: Mapping[str, NDArray[Any]]
    same_input: NDArray[Any]
    first_inputs: Array
    golden: GoldenSearch
    differing_pixels: int = 0
    no_labels: str = NO_IMAGES


@dataclass(frozen=True)
class TeacherOutputs:
    """The teacher's answers on the validation images.

    Attributes:
        logits: [N, K] in the classes of the data; None: there is no teacher to call.
        missing: why there is none.
        doubt: why its answers may be worse than it is, for example a normalisation that is not its own, and what
            would change that; empty: nothing is known against it.
    """

    logits: NDArray[Any] | None
    missing: str = ""
    doubt: str = ""


def judge_model(
    candidate: LoadedModel,
    reference_name: str,
    outputs: Measured,
    bundle: Bundle,
    settings: ValidateSettings,
    budget: PrecisionBudget,
    before: Sequence[Judgement],
) -> Judgement:
    """Judge one model.

    Args:
        candidate: the model; it is called again, at other batch sizes.
        reference_name: what it is compared with.
        outputs: what both gave.
        bundle: for its files and classes.
        settings: limits of fp32, and the batch sizes to compare.
        budget: of this precision on this device.
        before: judgements so far; a failure of fp32 explains that of the precisions made from it.
    """
    loader, name = candidate.loader, candidate.name
    is_full = name.precision == FULL
    parity = list(_parity(settings.batches, reference_name, candidate, outputs))
    accuracy = None
    if outputs.labels is not None:
        accuracy = compare_accuracy(
            outputs.logits[reference_name], outputs.logits[name], outputs.labels, bundle.spec.classes
        )
    why = outputs.no_labels
    checks = check_limits(settings, parity, accuracy, why) if is_full else [check_finite(parity)]
    checks += check_budget(budget, parity, accuracy, loader.size_mb, why)
    golden = golden_parity(candidate, outputs.golden.golden)
    parity.append(golden)
    if is_full:
        checks.append(check_golden(golden, settings.max_abs_relative))
    elif budget.mean_abs_relative is not None:
        checks.append(check_golden(golden, budget.mean_abs_relative, "mean_abs_relative"))
    verdict = verdict_of(checks)
    assert verdict != "NOT JUDGED"  # that the logits are finite is always checked
    return Judgement(
        runner=name,
        precision=name.precision,
        provider=name.provider,
        verdict=verdict,
        reason=reason_of(checks),
        native=candidate.native.is_native,
        native_reason=candidate.native.reason,
        computed_in=candidate.native.other or name.precision,
        size_mb=loader.size_mb,
        engine_sha256=loader.engine_sha256,
        parity=parity,
        accuracy=accuracy,
        checks=checks,
        causes=list(_causes(reference_name, candidate, outputs, before, checks)) if verdict == "FAIL" else [],
    )


def _parity(
    batches: Sequence[int], reference_name: str, candidate: LoadedModel, outputs: Measured
) -> Iterator[Parity]:
    """Compare with the reference on the same inputs: all of them, then the first in other batches."""
    names = {"reference_name": reference_name, "candidate_name": candidate.name}
    reference_NK = outputs.same_input
    yield compare_outputs(reference_NK, outputs.logits[candidate.name], batch=candidate.batch(BATCH), **names)
    images = len(outputs.first_inputs)
    for batch in candidate.batches(batches):
        candidate_NK = candidate.logits(outputs.first_inputs, batch)
        yield compare_outputs(reference_NK[:images], candidate_NK, batch=batch, **names)


def golden_parity(model: LoadedModel, golden: Golden) -> Parity:
    """Compare a model with the logits that torch gave for the golden inputs."""
    batch = model.batch(min(len(golden.input), BATCH))
    logits_NK = model.logits(golden.input, batch)
    return compare_outputs(golden.logits, logits_NK, reference_name=GOLDEN, candidate_name=model.name, batch=batch)


def _causes(
    reference_name: str,
    candidate: LoadedModel,
    outputs: Measured,
    before: Sequence[Judgement],
    checks: Sequence[Check],
) -> Iterator[str]:
    """What a failure looks like. What only more images could show has no cause."""
    failed = {check.name for check in checks if check.verdict == "FAIL"} - {"size", "golden logits"}
    if not failed:
        return
    name = candidate.name
    file = candidate.loader.file or name
    if not failed & _SAME_INPUT and outputs.differing_pixels:
        yield f"{file} agrees with {reference_name} on the same inputs: what is lost comes with the device's input"
        return
    known = explain_logits(outputs.same_input[:_ROWS], outputs.logits[candidate.name][:_ROWS])
    made_from = next((one for one in before if one.precision == FULL and one.provider == name.provider), None)
    if known is not None:
        yield f"{file}: {known}"
    elif _takes_bgr(candidate, outputs):
        yield f"{file}: the model takes its channels in the order BGR; its spec says RGB"
    elif name.precision == FULL or made_from is None:
        yield (
            f"{file}: on the very same inputs it gives other logits than {reference_name}; one of its nodes or "
            "weights is another"
        )
    elif made_from.verdict != "FAIL":
        yield f"{file}: model.fp32.onnx passes on the same images, so this comes from the conversion"
    else:
        yield f"{file}: model.fp32.onnx fails on the same images: look there first"


def _takes_bgr(candidate: LoadedModel, outputs: Measured) -> bool:
    """Whether the candidate agrees with the reference once the channels are turned round, and not before."""
    inputs_N = outputs.first_inputs
    turned_N = inputs_N[..., ::-1] if candidate.loader.spec.input_layout == "NHWC" else inputs_N[:, ::-1]
    first_N = outputs.same_input[: len(inputs_N)].argmax(axis=1)
    before_N = outputs.logits[candidate.name][: len(inputs_N)].argmax(axis=1)
    after_N = candidate.logits(turned_N).argmax(axis=1)
    return bool((after_N == first_N).mean() > 0.9 > (before_N == first_N).mean())


def add_teacher_drop(judgement: Judgement, outputs: Measured, teacher: TeacherOutputs) -> Judgement:
    """Add what a model loses against the teacher on the same images, where both were called."""
    logits_NK = outputs.logits.get(judgement.runner)
    if teacher.logits is None or outputs.labels is None or logits_NK is None:
        return judgement
    drop = measure_drop(teacher.logits, logits_NK, outputs.labels)
    return judgement.model_copy(update={"teacher_drop": drop})


def judge_student(
    student_NK: NDArray[Any] | None,
    labels_N: NDArray[np.integer[Any]] | None,
    classes: Sequence[str],
    teacher: TeacherOutputs,
    student_drop: float | None,
) -> StudentJudgement:
    """Judge the fp32 student on labelled images.

    Args:
        student_NK: its logits.
        labels_N: indices of classes; None: there are no labels, and nothing is judged.
        classes: K names.
        teacher: on the same images.
        student_drop: accuracy that the student may have less than its teacher, a fraction; None: not judged.
    """
    checks: list[Check] = []
    if student_NK is None or labels_N is None:
        if student_drop is not None:
            checks.append(not_judged(AGAINST_TEACHER, "<=", student_drop, teacher.missing or NO_IMAGES))
        return StudentJudgement(verdict="NOT JUDGED", reason=NO_IMAGES, checks=checks)
    counts_K = np.bincount(labels_N, minlength=len(classes))
    commonest = int(counts_K.argmax())
    share = float(counts_K[commonest] / len(labels_N))
    paired, accuracy = None, None
    if student_drop is not None:
        if teacher.logits is None:
            checks.append(not_judged(AGAINST_TEACHER, "<=", student_drop, teacher.missing))
        else:
            paired = compare_accuracy(teacher.logits, student_NK, labels_N, classes)
            accuracy = accuracy_of(teacher.logits, labels_N)
            doubt = teacher.doubt or _doubt_guessing(accuracy.top1.value, classes[commonest], share)
            checks.append(check_teacher(paired, accuracy.top1.value, student_drop, doubt))
    checks.append(_check_commonest(student_NK, labels_N, classes[commonest], share))
    return StudentJudgement(
        verdict=verdict_of(checks),
        reason=_reason(checks),
        checks=checks,
        teacher=paired,
        teacher_accuracy=accuracy,
        commonest_class=classes[commonest],
        commonest_share=share,
    )


def _doubt_guessing(teacher_top1: float, name: str, share: float) -> str:
    """Doubt a teacher that is no better than always answering the commonest class; empty: it is better."""
    if teacher_top1 > share or share == 1:
        return ""
    return (
        f"the teacher itself is no better than always answering '{name}' ({_percent(share)}). Check teacher.mean, "
        "teacher.std and teacher.class_map"
    )


def check_teacher(paired: PairedAccuracy, teacher_top1: float, limit: float, doubt: str = "") -> Check:
    """Check what the student loses against its teacher by the high end of the interval.

    A teacher in doubt shows nothing by being worse than the student: no PASS then, but NOT SHOWN. More images
    would not change that.

    Args:
        paired: the teacher is the reference, the student the candidate.
        teacher_top1: accuracy of the teacher on the same images.
        limit: that may be lost, a fraction.
        doubt: why the teacher's answers may be worse than it is.
    """
    drop = paired.top1_drop
    how = "below" if drop.value >= 0 else "above"
    detail = (
        f"{100 * abs(drop.value):.1f} points {how} the teacher ({_percent(teacher_top1 - drop.value)} against "
        f"{_percent(teacher_top1)}) on {paired.images} images, {100 * limit:g} allowed"
    )
    check = check_drop(AGAINST_TEACHER, paired, limit, detail)
    if not doubt or check.failed:
        return check
    in_doubt = {"verdict": "NOT SHOWN", "detail": f"{detail}; {doubt}", "images_needed": None}
    return check.model_copy(update=in_doubt)


def _check_commonest(
    student_NK: NDArray[Any], labels_N: NDArray[np.integer[Any]], name: str, share: float
) -> Check:
    """The student has to be right more often than a model that always answers the commonest class.

    The share of that class is taken as it is on these images; the interval is the student's.
    """
    if share == 1:
        return not_judged(AGAINST_COMMONEST, ">", share, f"all images are of one class, '{name}'")
    top1 = accuracy_of(student_NK, labels_N).top1
    right = f"right on {_percent(top1.value)} of {len(labels_N)} images"
    detail = f"{right}; always answering '{name}' gives {_percent(share)}"
    return check_share(AGAINST_COMMONEST, top1, len(labels_N), share, detail, ">")


def _reason(checks: Sequence[Check]) -> str:
    """The first check that decides, in words."""
    verdict = verdict_of(checks)
    if verdict == "FAIL":
        return next(check.detail for check in checks if check.failed)
    if verdict == "NOT SHOWN":
        return unproven(checks).detail
    words = [check.detail for check in checks if check.verdict == "PASS"]
    words += [f"{check.name} not judged: {check.detail}" for check in checks if check.verdict == "NOT JUDGED"]
    return "; ".join(words)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
