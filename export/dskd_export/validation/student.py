"""Is the student worth shipping at all? Against its teacher, and against always answering the commonest class.

Shape suffixes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dskd_export.documents.validation import Check, PairedAccuracy, StudentJudgement
from dskd_export.validation.accuracy import accuracy_of, compare_accuracy
from dskd_export.validation.gate import check_drop, check_share
from dskd_export.validation.verdicts import unproven, verdict_of

AGAINST_TEACHER = "drop vs teacher"
AGAINST_COMMONEST = "vs commonest class"

NO_TEACHER_IN_BUNDLE = "a bundle holds no teacher, the run does"
NO_LABELS = "no labelled images are compared"


@dataclass(frozen=True)
class TeacherOutputs:
    """What the teacher says of the validation images.

    Attributes:
        logits: [N, K] in the classes of the data; None: there is no teacher to call.
        missing: why there is none.
    """

    logits: NDArray[Any] | None
    missing: str = ""


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
            checks.append(_not_judged(AGAINST_TEACHER, "<=", student_drop, teacher.missing or NO_LABELS))
        return StudentJudgement(verdict="NOT JUDGED", reason=NO_LABELS, checks=checks)
    paired, accuracy = None, None
    if student_drop is not None:
        if teacher.logits is None:
            checks.append(_not_judged(AGAINST_TEACHER, "<=", student_drop, teacher.missing))
        else:
            paired = compare_accuracy(teacher.logits, student_NK, labels_N, classes)
            accuracy = accuracy_of(teacher.logits, labels_N)
            checks.append(check_teacher(paired, accuracy.top1.value, student_drop))
    counts_K = np.bincount(labels_N, minlength=len(classes))
    commonest = int(counts_K.argmax())
    share = float(counts_K[commonest] / len(labels_N))
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


def check_teacher(paired: PairedAccuracy, teacher_top1: float, limit: float) -> Check:
    """Check what the student loses against its teacher by the high end of the interval.

    Args:
        paired: the teacher is the reference, the student the candidate.
        teacher_top1: accuracy of the teacher on the same images.
        limit: that may be lost, a fraction.
    """
    drop = paired.top1_drop
    how = "below" if drop.value >= 0 else "above"
    detail = (
        f"{100 * abs(drop.value):.1f} points {how} the teacher ({_percent(teacher_top1 - drop.value)} against "
        f"{_percent(teacher_top1)}) on {paired.images} images, {100 * limit:g} allowed"
    )
    return check_drop(AGAINST_TEACHER, paired, limit, detail)


def _check_commonest(
    student_NK: NDArray[Any], labels_N: NDArray[np.integer[Any]], name: str, share: float
) -> Check:
    """The student has to be right more often than a model that always answers the commonest class.

    The share of that class is taken as it is on these images; the interval is the student's.
    """
    if share == 1:
        return _not_judged(AGAINST_COMMONEST, ">", share, f"all images are of one class, '{name}'")
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


def _not_judged(name: str, comparison: Literal["<=", ">"], limit: float, why: str) -> Check:
    return Check(name=name, value=None, limit=limit, comparison=comparison, verdict="NOT JUDGED", detail=why)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
