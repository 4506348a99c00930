"""May a model ship? One check a limit, from numbers that were measured elsewhere.

fp32 is the same function as its reference or it is not: the limits of `ValidateSettings` judge it, image by image.
A lower precision is another function, which may cost something: a `PrecisionBudget` judges it, by the end of the
95 % interval and not by the value. What few images leave open is NOT SHOWN, neither PASS nor FAIL.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from dskd_export.documents.base import Interval
from dskd_export.documents.validation import (
    Check,
    PairedAccuracy,
    Parity,
    PreprocessParity,
    Verdict,
)
from dskd_export.settings import PrecisionBudget, ValidateSettings
from dskd_export.validation.accuracy import MIN_CLASS_IMAGES
from dskd_export.validation.intervals import images_for_drop, images_for_share, round_up
from dskd_export.validation.parity import GoldenSearch

Comparison = Literal["<=", ">=", ">"]

# Of the many images that may be wrong, so many are named.
_NAMED = 3

NOT_FINITE = "NaN or Inf in the logits"
NO_IMAGES = "no labelled images are compared"
IS_REFERENCE = "on the labelled images it is the reference itself"


def check_limits(
    limits: ValidateSettings, parity: Sequence[Parity], accuracy: PairedAccuracy | None, missing: str = NO_IMAGES
) -> list[Check]:
    """Check an fp32 model against its limits, each by the worst batch.

    NaN or Inf in any logits fails every check: no value, and the reason.

    Args:
        limits: what is allowed.
        parity: comparisons with the reference on the same inputs, one a batch size.
        accuracy: comparison with the reference on labelled images; None: there is none, and what
            needs it is not judged.
        missing: why there is no accuracy.
    """
    if not parity:
        raise ValueError("there is no comparison to judge")
    finite = all(item.finite for item in parity)
    relative, cosines, kls, agreements = (
        [(item.batch, getattr(item, field)) for item in parity]
        for field in ("max_abs_relative", "cosine_min", "kl_max", "top1_agreement")
    )
    if accuracy is None:
        drop = not_judged("top-1 drop", "<=", limits.max_top1_drop, missing)
    else:
        share = (accuracy.lost - accuracy.gained) / accuracy.images
        drop = _check("top-1 drop", share, "<=", limits.max_top1_drop, f"on {accuracy.images} images")
    return [
        _worst("max abs / scale", relative, "<=", limits.max_abs_relative, finite),
        _worst("cosine", cosines, ">=", limits.min_cosine, finite),
        _worst("KL", kls, "<=", limits.max_kl, finite, "nats, "),
        _worst("top-1 agreement", agreements, ">=", limits.min_agreement, finite),
        drop if finite else _not_finite(drop.name, "<=", drop.limit),
    ]


def check_budget(
    budget: PrecisionBudget,
    parity: Sequence[Parity],
    accuracy: PairedAccuracy | None,
    size_mb: float | None = None,
    missing: str = NO_IMAGES,
) -> list[Check]:
    """Check a model against a budget: one check for each key that is set.

    A value within the limit whose interval is not is NOT SHOWN: the detail says how many images would do.

    Args:
        budget: what is allowed.
        parity: comparisons with the reference on the same inputs, one a batch size.
        accuracy: comparison with the reference on labelled images; None: there is none, and what
            needs it is not judged.
        size_mb: of the model file; None leaves it out.
        missing: why there is no accuracy.
    """
    checks = []
    if budget.mean_abs_relative is not None and parity:
        relative = [(item.batch, item.mean_abs_relative) for item in parity]
        finite = all(item.finite for item in parity)
        checks.append(_worst("mean abs / scale", relative, "<=", budget.mean_abs_relative, finite))
    by_accuracy: list[tuple[str, Comparison, float | None, Callable[[PairedAccuracy, float], Check]]] = [
        ("top-1 agreement", ">=", budget.agreement, _agreement),
        ("top-1 drop", "<=", budget.top1_drop, lambda accuracy, limit: check_drop("top-1 drop", accuracy, limit)),
        ("worst class drop", "<=", budget.worst_class_drop, _worst_class_drop),
    ]
    for name, comparison, limit, check in by_accuracy:
        if limit is not None:
            checks.append(
                not_judged(name, comparison, limit, missing) if accuracy is None else check(accuracy, limit)
            )
    if budget.size_mb is not None and size_mb is not None:
        checks.append(_check("size", size_mb, "<=", budget.size_mb, "MB"))
    return checks


def check_finite(parity: Sequence[Parity]) -> Check:
    """Check that no logits of a comparison hold NaN or Inf."""
    return check_count("finite logits", [] if all(item.finite for item in parity) else [NOT_FINITE])


def check_golden(
    parity: Parity, limit: float, measure: Literal["max_abs_relative", "mean_abs_relative"] = "max_abs_relative"
) -> Check:
    """Check that the golden inputs still give the golden logits, within a limit relative to the largest logit."""
    return _worst("golden logits", [(parity.batch, getattr(parity, measure))], "<=", limit, parity.finite)


def check_golden_images(golden: GoldenSearch) -> Check:
    """Check that golden images among the data have the inputs and labels of the bundle."""
    if not golden.found:
        return not_judged("golden images", "<=", 0.0, "none of them is among the images")
    differences = golden.differences()
    detail = f"{len(golden.found)} of {len(golden.golden.labels)} were among the images"
    check = check_count("golden images", differences[:_NAMED], detail)
    return check.model_copy(update={"value": float(len(differences))})


def check_inputs(parity: PreprocessParity, max_pixel_error: float) -> Check:
    """Compare the device's input with timm's.

    Args:
        parity: of the two.
        max_pixel_error: in 1/255 before normalisation.
    """
    detail = f"in 1/255, {parity.differing_pixels:,} pixels of {parity.images} images differ"
    return _check("pixel difference", parity.max_abs_pixel, "<=", max_pixel_error, detail)


def check_count(name: str, wrong: Sequence[str], what: str = "") -> Check:
    """Check things that are right or wrong: none may be wrong.

    Args:
        name: of the check.
        wrong: what is wrong, in words.
        what: the detail where nothing is.
    """
    return _check(name, float(len(wrong)), "<=", 0.0, "; ".join(wrong) or what)


def check_share(
    name: str, share: Interval, images: int, limit: float, detail: str, comparison: Literal[">=", ">"] = ">="
) -> Check:
    """Check a share of images by the low end of its interval.

    Args:
        name: of the check.
        share: with its Wilson score interval.
        images: that it is a share of.
        limit: that it has to reach, or with `>` to exceed.
        detail: the share in words.
        comparison: whether the limit itself passes.
    """
    holds = [value > limit or (comparison == ">=" and value == limit) for value in (share.low, share.value)]
    verdict: Verdict = "PASS" if holds[0] else "NOT SHOWN" if holds[1] else "FAIL"
    needed = None
    if verdict == "NOT SHOWN":
        needed = images_for_share(round(share.value * images), images, limit)
        needed, detail = _would_show(needed, detail)
    return _made(name, share.value, share.low, comparison, limit, verdict, detail, needed)


def check_drop(name: str, accuracy: PairedAccuracy, limit: float, detail: str = "") -> Check:
    """Check the accuracy that is lost by the high end of its interval.

    Args:
        name: of the check.
        accuracy: of the two that are compared.
        limit: that may be lost, a fraction.
        detail: what was found in words; empty: the images lost and gained.
    """
    drop, images, lost, gained = accuracy.top1_drop, accuracy.images, accuracy.lost, accuracy.gained
    verdict: Verdict = "PASS" if drop.high <= limit else "NOT SHOWN" if drop.value <= limit else "FAIL"
    detail = detail or f"{lost} of {images} images lost{f', {gained} gained' if gained else ''}"
    needed = None
    if verdict == "NOT SHOWN":
        needed, detail = _would_show(images_for_drop(lost, gained, images, limit), detail)
    return _made(name, drop.value, drop.high, "<=", limit, verdict, detail, needed)


def _agreement(accuracy: PairedAccuracy, limit: float) -> Check:
    share, images = accuracy.agreement, accuracy.images
    detail = f"{round(share.value * images)} of {images} images agree"
    return check_share("top-1 agreement", share, images, limit, detail)


def _worst_class_drop(accuracy: PairedAccuracy, limit: float) -> Check:
    """A veto: it fails where a class is shown to have lost more, by the lower bound of its drop.

    To show of each class that it has not would take hundreds of images of each.
    """
    worst = accuracy.worst_class
    if worst is None:
        most = accuracy.largest_class_images
        why = f"no class has {MIN_CLASS_IMAGES} images; the largest has {most}"
        return not_judged("worst class drop", "<=", limit, why)
    verdict: Verdict = "PASS" if worst.drop.low <= limit else "FAIL"
    detail = f"class {worst.name!r}: {worst.lost} of {worst.images} images lost, {worst.gained} gained"
    return _made("worst class drop", worst.drop.value, worst.drop.low, "<=", limit, verdict, detail)


def _would_show(needed: int | None, detail: str) -> tuple[int | None, str]:
    """How many images would show a value that is within its limit, as a number and in words."""
    if needed is None:
        return None, f"{detail}: the value is at the limit, which no number of images would show"
    needed = round_up(needed)
    return needed, f"{detail}; {needed:,} images would show it"


def _worst(
    name: str,
    values: Sequence[tuple[int, float]],
    comparison: Comparison,
    limit: float,
    finite: bool,
    unit: str = "",
) -> Check:
    """Check the worst value; each comes with the batch size that gave it."""
    if not finite:
        return _not_finite(name, comparison, limit)
    pick = max if comparison == "<=" else min
    batch, value = pick(values, key=lambda pair: pair[1])
    return _check(name, value, comparison, limit, f"{unit}worst at batch {batch}")


def _check(name: str, value: float, comparison: Comparison, limit: float, detail: str) -> Check:
    if not math.isfinite(value):
        why = "not measurable: the reference is zero everywhere"
        return _made(name, None, None, comparison, limit, "FAIL", why)
    passed = value <= limit if comparison == "<=" else value >= limit
    return _made(name, value, None, comparison, limit, "PASS" if passed else "FAIL", detail)


def _not_finite(name: str, comparison: Comparison, limit: float) -> Check:
    return _made(name, None, None, comparison, limit, "FAIL", NOT_FINITE)


def not_judged(name: str, comparison: Comparison, limit: float, why: str) -> Check:
    """Make a check that cannot be decided, with the reason."""
    return _made(name, None, None, comparison, limit, "NOT JUDGED", why)


def _made(
    name: str,
    value: float | None,
    bound: float | None,
    comparison: Comparison,
    limit: float,
    verdict: Verdict,
    detail: str,
    images_needed: int | None = None,
) -> Check:
    return Check(
        name=name,
        value=value,
        bound=bound,
        limit=limit,
        comparison=comparison,
        verdict=verdict,
        detail=detail,
        images_needed=images_needed,
    )
