from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from dskd_export.documents.validation import Check, ClassDrop, PairedAccuracy, Parity, PreprocessParity
from dskd_export.settings import PrecisionBudget, ValidateSettings
from dskd_export.validation.checks import (
    check_budget,
    check_count,
    check_finite,
    check_golden,
    check_inputs,
    check_limits,
)
from dskd_export.validation.intervals import mcnemar_p, paired_interval, wilson_interval
from dskd_export.validation.parity import compare_outputs
from dskd_export.validation.verdicts import describe_check

LIMITS = ValidateSettings(
    max_abs_relative=1e-4, min_cosine=0.9999, max_kl=1e-4, min_agreement=1.0, max_top1_drop=0.005
)
CHECKS = ["max abs / scale", "cosine", "KL", "top-1 agreement", "top-1 drop"]


def make_parity(batch: int = 1, **changes: object) -> Parity:
    fields: dict[str, object] = {
        "reference": "torch",
        "candidate": "ort",
        "batch": batch,
        "images": 64,
        "max_abs": 1e-5,
        "output_scale": 1,
        "max_abs_relative": 1e-5,
        "mean_abs_relative": 1e-6,
        "cosine_min": 0.99999,
        "cosine_mean": 0.999999,
        "kl_max": 1e-6,
        "kl_mean": 1e-7,
        "top1_agreement": 1.0,
        "top5_agreement": 1.0,
        "finite": True,
    }
    return Parity.model_validate(fields | changes)


def broken_parity(batch: int = 3) -> Parity:
    return compare_outputs(
        np.ones((2, 3)), np.full((2, 3), np.nan), reference_name="torch", candidate_name="ort", batch=batch
    )


def make_paired(
    lost: int = 0, gained: int = 0, images: int = 200, same: int | None = None, worst: ClassDrop | None = None
) -> PairedAccuracy:
    return PairedAccuracy(
        images=images,
        lost=lost,
        gained=gained,
        top1_drop=paired_interval(lost, gained, images),
        mcnemar_p=mcnemar_p(lost, gained),
        agreement=wilson_interval(images - lost - gained if same is None else same, images),
        worst_class=worst,
        largest_class_images=3,
        reference_calibration_error=0.02,
        calibration_error=0.03,
    )


def class_drop(lost: int, images: int) -> ClassDrop:
    return ClassDrop(name="tench", images=images, lost=lost, gained=0, drop=paired_interval(lost, 0, images))


def failed(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if check.failed]


def judge(parity: list[Parity] | None = None, **paired: int) -> list[Check]:
    return check_limits(LIMITS, parity or [make_parity()], make_paired(**paired))


# --- fp32


def test_one_check_a_limit_and_all_pass() -> None:
    checks = judge()
    assert [check.name for check in checks] == CHECKS
    assert failed(checks) == []
    assert [check.limit for check in checks] == [1e-4, 0.9999, 1e-4, 1.0, 0.005]
    assert [check.comparison for check in checks] == ["<=", ">=", "<=", ">=", "<="]
    assert [check.value for check in checks] == [1e-5, 0.99999, 1e-6, 1.0, 0.0]


@pytest.mark.parametrize(
    ("name", "field", "at_limit", "over"),
    [
        ("max abs / scale", "max_abs_relative", 1e-4, 1.01e-4),
        ("cosine", "cosine_min", 0.9999, 0.99989),
        ("KL", "kl_max", 1e-4, 1.01e-4),
        ("top-1 agreement", "top1_agreement", 1.0, 0.999),
    ],
)
def test_the_worst_batch_decides(name: str, field: str, at_limit: float, over: float) -> None:
    good = make_parity(1)
    assert failed(judge([good, make_parity(3, **{field: at_limit})])) == []
    for order in ([good, make_parity(8, **{field: over})], [make_parity(8, **{field: over}), good]):
        checks = judge(order)
        assert failed(checks) == [name]
        check = next(check for check in checks if check.name == name)
        assert check.value == over
        assert "batch 8" in check.detail


def test_two_comparisons_of_one_batch_size_both_count() -> None:
    bad = make_parity(16, max_abs_relative=1.0)
    for order in ([bad, make_parity(16)], [make_parity(16), bad]):
        assert failed(judge(order)) == ["max abs / scale"]


def test_the_accuracy_of_fp32_is_counted_on_these_images() -> None:
    """By the value: that fp32 is the same function is shown by its logits."""
    assert failed(judge(lost=1)) == []  # one of 200 is exactly the limit
    assert failed(judge(lost=2)) == ["top-1 drop"]
    assert failed(judge(lost=2, gained=1)) == []
    assert judge(gained=5)[4].value == -0.025


def test_nan_and_inf_fail_all_that_rests_on_logits() -> None:
    checks = judge([make_parity(), broken_parity()])
    assert failed(checks) == CHECKS
    for check in checks:
        assert check.value is None
        assert check.detail == "NaN or Inf in the logits"


def test_a_reference_of_zeros_fails_with_its_reason() -> None:
    zeros = compare_outputs(
        np.zeros((1, 3)), np.ones((1, 3)), reference_name="torch", candidate_name="ort", batch=1
    )
    check = judge([zeros])[0]
    assert (check.verdict, check.value) == ("FAIL", None)
    assert "zero everywhere" in check.detail


def test_there_must_be_something_to_judge() -> None:
    with pytest.raises(ValueError, match="no comparison"):
        check_limits(LIMITS, [], make_paired())


@pytest.mark.parametrize("changes", [{"min_cosine": 1.1}, {"max_speed": 1}, {"max_abs_relative": 0}])
def test_limits_are_checked(changes: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ValidateSettings(**(LIMITS.model_dump() | changes))


# --- the budget


def drop_check(lost: int, gained: int, images: int, limit: float = 0.01) -> Check:
    (check,) = check_budget(PrecisionBudget(top1_drop=limit), [make_parity()], make_paired(lost, gained, images))
    return check


def test_the_bound_decides_and_not_the_value() -> None:
    passed = drop_check(3, 3, 2000)
    assert (passed.verdict, passed.value, passed.failed) == ("PASS", 0.0, False)
    assert passed.bound == paired_interval(3, 3, 2000).high <= 0.01
    lost = drop_check(30, 0, 1000)
    assert (lost.verdict, lost.value) == ("FAIL", 0.03)
    few = drop_check(0, 0, 256)
    assert (few.verdict, few.value, few.failed) == ("NOT SHOWN", 0.0, False)
    assert few.bound is not None
    assert few.bound > few.limit
    assert (few.images_needed, few.detail) == (390, "0 of 256 images lost; 390 images would show it")
    assert drop_check(0, 0, 390).verdict == "PASS"


def test_a_value_at_the_limit_cannot_be_shown_by_any_images() -> None:
    check = drop_check(10, 0, 1000)
    assert check.verdict == "NOT SHOWN"
    assert check.images_needed is None
    assert "at the limit" in check.detail


def agreement_check(same: int, images: int, limit: float = 0.95) -> Check:
    (check,) = check_budget(
        PrecisionBudget(agreement=limit), [make_parity()], make_paired(images=images, same=same)
    )
    return check


def passes_with(same: float, images: int) -> bool:
    return wilson_interval(same, images).low >= 0.95


def test_agreement_by_its_lower_bound() -> None:
    assert agreement_check(1290, 1300).verdict == "PASS"
    assert agreement_check(1000, 1300).verdict == "FAIL"
    few = agreement_check(48, 50)
    assert (few.verdict, few.bound) == ("NOT SHOWN", wilson_interval(48, 50).low)
    assert few.images_needed is not None
    assert few.images_needed > 50
    assert few.detail == f"48 of 50 images agree; {few.images_needed:,} images would show it"
    assert passes_with(few.images_needed * 48 / 50, few.images_needed)


def class_check(worst: ClassDrop | None, limit: float = 0.2) -> Check:
    (check,) = check_budget(
        PrecisionBudget(worst_class_drop=limit), [make_parity()], make_paired(images=500, worst=worst)
    )
    return check


def test_a_class_vetoes_where_its_loss_is_shown() -> None:
    check = class_check(class_drop(30, 50))
    assert (check.verdict, check.value) == ("FAIL", 0.6)
    assert check.detail == "class 'tench': 30 of 50 images lost, 0 gained"
    assert class_check(class_drop(4, 12)).verdict == "PASS"  # a third of few images may be chance


def test_without_a_class_to_judge_it_is_neither_passed_nor_failed() -> None:
    check = class_check(None)
    assert (check.verdict, check.value, check.failed) == ("NOT JUDGED", None, False)
    assert check.detail == "no class has 10 images; the largest has 3"
    assert describe_check(check) == f"worst class drop is not judged: {check.detail}"


def test_size_and_distance() -> None:
    budget = PrecisionBudget(size_mb=4, mean_abs_relative=0.1)
    assert failed(check_budget(budget, [make_parity()], make_paired(), 4.0)) == []
    assert failed(check_budget(budget, [make_parity()], make_paired(), 4.1)) == ["size"]
    assert [check.name for check in check_budget(budget, [make_parity()], make_paired())] == ["mean abs / scale"]
    far = [make_parity(), make_parity(8, mean_abs_relative=9.0)]
    assert failed(check_budget(budget, far, make_paired(), 1.0)) == ["mean abs / scale"]
    assert failed(check_budget(budget, [broken_parity()], make_paired(), 1.0)) == ["mean abs / scale"]


def test_what_is_not_in_the_budget_is_not_judged() -> None:
    assert check_budget(PrecisionBudget(), [broken_parity()], make_paired(lost=200)) == []
    with pytest.raises(ValidationError):
        PrecisionBudget(top1_drop=-0.1)
    with pytest.raises(ValidationError):
        PrecisionBudget(latency_p99_ms=5)  # type: ignore[call-arg]


# --- the other checks


def test_finite() -> None:
    assert not check_finite([make_parity()]).failed
    check = check_finite([make_parity(), broken_parity()])
    assert (check.failed, check.detail) == (True, "NaN or Inf in the logits")


def test_golden() -> None:
    assert not check_golden(make_parity(16), 1e-4).failed
    assert check_golden(make_parity(16, max_abs_relative=0.1), 1e-4).failed
    assert not check_golden(make_parity(16, max_abs_relative=0.1), 1e-4, "mean_abs_relative").failed
    assert check_golden(broken_parity(), 1e9).failed


def test_inputs() -> None:
    def parity(pixel: float) -> PreprocessParity:
        return PreprocessParity(images=5, max_abs_pixel=pixel, max_abs_normalised=0, differing_pixels=7)

    assert not check_inputs(parity(1.0), 1.0).failed
    check = check_inputs(parity(2.0), 1.0)
    assert check.failed
    assert "7 pixels of 5 images differ" in check.detail


def test_counts() -> None:
    assert check_count("spec", [], "fine") == Check(
        name="spec", value=0.0, limit=0.0, comparison="<=", verdict="PASS", detail="fine"
    )
    check = check_count("spec", ["mean", "std"])
    assert (check.verdict, check.value, check.detail) == ("FAIL", 2.0, "mean; std")


# --- words


def test_sentences() -> None:
    assert describe_check(judge()[0]) == "max abs / scale is 1e-05, the limit is <= 0.0001"
    few = (
        "top-1 drop is 0 (95 % bound 0.0148), the limit is <= 0.01: 0 of 256 images lost; 390 images would show it"
    )
    assert describe_check(drop_check(0, 0, 256)) == few
    lost = "top-1 drop is 0.03 (95 % bound 0.0425), the limit is <= 0.01: 30 of 1000 images lost"
    assert describe_check(drop_check(30, 0, 1000)) == lost
