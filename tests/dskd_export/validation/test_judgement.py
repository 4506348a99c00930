"""The student against its teacher and the commonest class, on logits that are made up, against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import binomtest, norm

from dskd_export.documents.validation import Check, StudentJudgement
from dskd_export.validation.judgement import (
    AGAINST_COMMONEST,
    AGAINST_TEACHER,
    NO_TEACHER_IN_BUNDLE,
    TeacherOutputs,
    judge_student,
)

CLASSES = ("cat", "dog", "fox")
Z = float(norm.ppf(0.975))


def labels_of(*counts: int) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(counts)), counts)


def logits_with(labels_N: NDArray[np.int64], wrong: slice) -> NDArray[np.float64]:
    """Right everywhere but at some places."""
    answers_N = labels_N.copy()
    answers_N[wrong] = (answers_N[wrong] + 1) % len(CLASSES)
    return np.eye(len(CLASSES))[answers_N]


def judge(
    labels_N: NDArray[np.int64], student: slice, teacher: slice | None = None, drop: float | None = 0.02
) -> StudentJudgement:
    outputs = TeacherOutputs(None, NO_TEACHER_IN_BUNDLE)
    if teacher is not None:
        outputs = TeacherOutputs(logits_with(labels_N, teacher))
    return judge_student(logits_with(labels_N, student), labels_N, CLASSES, outputs, drop)


def named(judgement: StudentJudgement, name: str) -> Check:
    return next(check for check in judgement.checks if check.name == name)


def tango_high(b: int, c: int, n: int) -> float:
    """The upper end of Tango's interval, by a search over the multinomial likelihood."""

    def score(d: float) -> float:
        def minus_log(q: float) -> float:
            shares, counts = (q + d, q, 1 - 2 * q - d), (b, c, n - b - c)
            return -sum(k * math.log(max(p, 1e-300)) for k, p in zip(counts, shares, strict=True) if k)

        q = minimize_scalar(
            minus_log, bounds=(max(0.0, -d), (1 - d) / 2), method="bounded", options={"xatol": 1e-12}
        ).x
        return float((b - c - n * d) / math.sqrt(n * (2 * q + d * (1 - d))) + Z)

    return float(brentq(score, (b - c) / n + 1e-9, 0.999))


def test_33_points_below_the_teacher_fail() -> None:
    """96.0 % and 62.7 % of 300 images."""
    judgement = judge(labels_of(100, 100, 100), slice(0, 112), slice(0, 12))
    assert judgement.verdict == "FAIL"
    check = named(judgement, AGAINST_TEACHER)
    assert (check.verdict, check.limit, check.comparison) == ("FAIL", 0.02, "<=")
    assert check.value == pytest.approx(100 / 300)
    assert check.bound == pytest.approx(tango_high(100, 0, 300), abs=1e-6)
    assert judgement.reason == ("33.3 points below the teacher (62.7 % against 96.0 %) on 300 images, 2 allowed")
    assert judgement.teacher is not None
    assert (judgement.teacher.lost, judgement.teacher.gained) == (100, 0)
    assert judgement.teacher_accuracy is not None
    assert judgement.teacher_accuracy.top1.value == 0.96


def test_below_the_commonest_class_fails() -> None:
    """29.3 % right of 300 images, 130 of which are cats."""
    judgement = judge(labels_of(130, 100, 70), slice(0, 212))
    assert judgement.verdict == "FAIL"
    assert judgement.reason == "right on 29.3 % of 300 images; always answering 'cat' gives 43.3 %"
    assert (judgement.commonest_class, judgement.commonest_share) == ("cat", 130 / 300)
    check = named(judgement, AGAINST_COMMONEST)
    assert (check.value, check.limit, check.comparison) == (88 / 300, 130 / 300, ">")
    expected = binomtest(88, 300).proportion_ci(method="wilson").low
    assert check.bound == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("right", "verdict"), [(130, "FAIL"), (131, "NOT SHOWN"), (200, "PASS")])
def test_the_commonest_class_has_to_be_beaten_by_the_whole_interval(right: int, verdict: str) -> None:
    labels_N = labels_of(130, 100, 70)
    check = named(judge(labels_N, slice(0, 300 - right)), AGAINST_COMMONEST)
    assert check.verdict == verdict
    if verdict == "NOT SHOWN":
        needed = check.images_needed
        assert needed is not None
        reached = binomtest(round(needed * 131 / 300), needed).proportion_ci(method="wilson").low
        assert reached == pytest.approx(130 / 300, abs=1e-4)


def test_a_drop_within_the_limit_on_few_images_is_not_shown() -> None:
    judgement = judge(labels_of(50, 50, 50), slice(0, 4), slice(0, 3))
    check = named(judgement, AGAINST_TEACHER)
    assert (judgement.verdict, check.verdict) == ("NOT SHOWN", "NOT SHOWN")
    assert check.bound == pytest.approx(tango_high(1, 0, 150), abs=1e-6)
    needed = check.images_needed
    assert needed is not None
    assert judgement.reason.endswith(f"; {needed:,} images would show it")
    lost = needed / 150
    assert 150 < needed < 1000
    assert tango_high(math.floor(lost), 0, needed) <= 0.02


def test_a_student_as_good_as_its_teacher_passes() -> None:
    judgement = judge(labels_of(100, 100, 100), slice(0, 12), slice(0, 12))
    assert judgement.verdict == "PASS"
    assert [check.verdict for check in judgement.checks] == ["PASS", "PASS"]
    assert "0.0 points below the teacher (96.0 % against 96.0 %)" in judgement.reason


def test_without_a_teacher_it_is_not_judged_by_one() -> None:
    judgement = judge(labels_of(100, 100, 100), slice(0, 12))
    assert judgement.verdict == "PASS"
    check = named(judgement, AGAINST_TEACHER)
    assert (check.verdict, check.value, check.detail) == ("NOT JUDGED", None, NO_TEACHER_IN_BUNDLE)
    assert NO_TEACHER_IN_BUNDLE in judgement.reason
    nobody_asks = judge(labels_of(100, 100, 100), slice(0, 12), slice(0, 0), drop=None)
    assert [check.name for check in nobody_asks.checks] == [AGAINST_COMMONEST]


def test_images_of_one_class_show_nothing_of_a_commonest_one() -> None:
    check = named(judge(labels_of(40, 0, 0), slice(0, 0)), AGAINST_COMMONEST)
    assert (check.verdict, check.detail) == ("NOT JUDGED", "all images are of one class, 'cat'")


def test_without_labels_nothing_is_judged() -> None:
    outputs = TeacherOutputs(None, NO_TEACHER_IN_BUNDLE)
    judgement = judge_student(None, None, CLASSES, outputs, 0.02)
    assert judgement.verdict == "NOT JUDGED"
    assert {check.verdict for check in judgement.checks} == {"NOT JUDGED"}


def test_logits_that_are_not_finite_count_as_wrong() -> None:
    labels_N = labels_of(100, 100, 100)
    broken_NK = np.full((300, 3), np.nan)
    judgement = judge_student(
        broken_NK, labels_N, CLASSES, TeacherOutputs(logits_with(labels_N, slice(0, 0))), 0.02
    )
    assert [check.verdict for check in judgement.checks] == ["FAIL", "FAIL"]


@pytest.mark.parametrize(
    ("teacher", "doubt", "verdict"),
    [
        (slice(0, 10), "", "PASS"),
        (slice(0, 10), "it is fed wrongly", "NOT SHOWN"),  # as good as the teacher, which may be better than this
        (slice(0, 700), "it is fed wrongly", "NOT SHOWN"),  # far above it, which shows nothing
        (slice(0, 700), "", "NOT SHOWN"),  # a teacher that guesses is in doubt as it is
        (slice(0, 0), "it is fed wrongly", "NOT SHOWN"),
    ],
)
def test_a_teacher_in_doubt_proves_nothing(teacher: slice, doubt: str, verdict: str) -> None:
    labels_N = labels_of(400, 300, 300)
    outputs = TeacherOutputs(logits_with(labels_N, teacher), doubt=doubt)
    judgement = judge_student(logits_with(labels_N, slice(0, 10)), labels_N, CLASSES, outputs, 0.05)
    assert judgement.verdict == verdict
    check = named(judgement, AGAINST_TEACHER)
    assert (doubt in check.detail, check.images_needed) == (True, None)


def test_a_student_below_a_teacher_in_doubt_fails_all_the_same() -> None:
    labels_N = labels_of(400, 300, 300)
    outputs = TeacherOutputs(logits_with(labels_N, slice(0, 0)), doubt="it is fed wrongly")
    judgement = judge_student(logits_with(labels_N, slice(0, 200)), labels_N, CLASSES, outputs, 0.05)
    assert judgement.verdict == "FAIL"
