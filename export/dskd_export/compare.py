"""Are two runners the same function? Numbers about their outputs, and the gate that judges them.

All differences are relative to the scale of the reference's output, and all maths is float64.
Shape suffixes: B or N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from dskd_export.documents import Accuracy, Check, Parity, PreprocessParity
from dskd_export.errors import DataError, ModelError
from dskd_export.runtime.batches import logits_of
from dskd_export.runtime.runner import Array, Runner

NOT_FINITE = "NaN or Inf in the logits"


class Limits(BaseModel):
    """How far a candidate may be from its reference."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_abs_relative: float = Field(gt=0, description="largest logit difference / largest reference logit")
    min_cosine: float = Field(ge=-1, le=1, description="of the worst image")
    max_kl: float = Field(ge=0, description="nats, of the worst image")
    min_agreement: float = Field(ge=0, le=1, description="share of images with the same first class")
    max_top1_drop: float = Field(ge=0, le=1, description="accuracy that may be lost, a fraction")
    max_pixel_error: float = Field(ge=0, description="of the torch-free preprocessing, in 1/255")


def compare_outputs(
    reference: NDArray[Any],
    candidate: NDArray[Any],
    *,
    reference_name: str,
    candidate_name: str,
    batch: int,
) -> Parity:
    """Compare logits [N, K] of the same images.

    With NaN or Inf anywhere, `finite` is False and the numbers are NaN, as there is nothing to
    measure, but for the agreement: an image with NaN or Inf does not agree.

    Args:
        reference: logits [N, K] that are taken to be right.
        candidate: logits [N, K] that are held against them.
        reference_name: what gave the first.
        candidate_name: what gave the second.
        batch: images that were in one call.

    Raises:
        ModelError: the shapes differ.
        DataError: there are no images.
    """
    if reference.shape != candidate.shape or reference.ndim != 2:
        raise ModelError(
            f"{candidate_name} gives logits of shape {list(candidate.shape)}, "
            f"{reference_name} {list(reference.shape)}: they cannot be compared.",
            "Export the candidate from this reference again.",
        )
    if not reference.size:
        raise DataError("There are no logits to compare.", "Choose a data set that holds images.")
    a_NK, b_NK = reference.astype(np.float64), candidate.astype(np.float64)
    finite_N = (np.isfinite(a_NK) & np.isfinite(b_NK)).all(axis=1)
    finite = bool(finite_N.all())
    difference_NK = np.abs(b_NK - a_NK) if finite else np.full_like(a_NK, np.nan)
    scale = float(np.abs(a_NK).max()) if np.isfinite(a_NK).all() else math.nan
    max_abs = float(difference_NK.max())
    same_N = finite_N & (a_NK.argmax(axis=1) == b_NK.argmax(axis=1))
    return Parity(
        reference=reference_name,
        candidate=candidate_name,
        batch=batch,
        images=len(a_NK),
        max_abs=max_abs,
        output_scale=scale,
        max_abs_relative=_relative(max_abs, scale),
        mean_abs_relative=_relative(float(difference_NK.mean()), scale),
        cosine_min=float(cosine(a_NK, b_NK).min()) if finite else math.nan,
        kl_max=float(kl_divergence(a_NK, b_NK).max()) if finite else math.nan,
        top1_agreement=float(same_N.mean()),
        finite=finite,
    )


def compare_runners(
    reference: Runner,
    candidate: Runner,
    inputs_BCHW: Array,
    *,
    batch: int,
    input_name: str = "input",
    output_name: str = "logits",
) -> Parity:
    """Compare two runners on the same images, in calls of exactly `batch`; the last may be partial.

    Raises:
        DataError: there are no images.
        ModelError: an output is missing, or the outputs are of different shape.
    """
    logits = [
        logits_of(runner, inputs_BCHW, batch=batch, input_name=input_name, output_name=output_name)
        for runner in (reference, candidate)
    ]
    return compare_outputs(*logits, reference_name=reference.name, candidate_name=candidate.name, batch=batch)


def compare_preprocess(
    reference_uint8: Iterable[NDArray[np.uint8]],
    candidate_uint8: Iterable[NDArray[np.uint8]],
    std: Sequence[float],
) -> PreprocessParity:
    """Compare preprocessed images [H, W, C], uint8 before normalisation, one by one.

    Args:
        reference_uint8: as timm makes them.
        candidate_uint8: as the device makes them, in the same order.
        std: of the normalisation, C values for pixels in [0, 1].

    Returns:
        Differences in units of 1/255, after normalisation, and the number of differing pixels
        (a pixel counts once, whatever channels differ).

    Raises:
        DataError: there are no images, or two are of different size.
    """
    images = differing = 0
    worst_C = np.zeros(len(std))
    for reference_HWC, candidate_HWC in zip(reference_uint8, candidate_uint8, strict=True):
        if reference_HWC.shape != candidate_HWC.shape:
            raise DataError(
                f"Image {images} is {list(reference_HWC.shape)} in the reference and "
                f"{list(candidate_HWC.shape)} in the candidate.",
                "Export the bundle again: its spec does not fit the model.",
            )
        difference_HWC = np.abs(reference_HWC.astype(np.int16) - candidate_HWC.astype(np.int16))
        worst_C = np.maximum(worst_C, difference_HWC.max(axis=(0, 1)))
        differing += int(difference_HWC.any(axis=2).sum())
        images += 1
    if not images:
        raise DataError("There are no images to compare.", "Choose a data set that holds images.")
    return PreprocessParity(
        images=images,
        max_abs_pixel=float(worst_C.max()),
        max_abs_normalised=float((worst_C / 255 / np.asarray(std, dtype=np.float64)).max()),
        differing_pixels=differing,
    )


def gate(
    limits: Limits,
    parity: Sequence[Parity],
    accuracy: Mapping[str, Accuracy],
    preprocess: PreprocessParity,
    *,
    reference: str,
    candidate: str,
) -> list[Check]:
    """Judge a candidate: one check a limit, each by the worst batch.

    NaN or Inf in any logits fails every check that rests on logits: no value, and the reason.

    Args:
        limits: what is allowed.
        parity: comparisons; those of these two runners count.
        accuracy: runner name -> accuracy on the same images.
        preprocess: torch-free against timm's.
        reference: name of the runner that is right.
        candidate: name of the runner that is judged.
    """
    chosen = [item for item in parity if (item.reference, item.candidate) == (reference, candidate)]
    if not chosen:
        raise ValueError(f"there is no comparison of {candidate} with {reference}")
    finite = all(item.finite for item in chosen)
    pixel = preprocess.max_abs_pixel
    drop = _top1_drop(accuracy[reference], accuracy[candidate])
    images = accuracy[candidate].images
    relative, cosines, kls, agreements = (
        {item.batch: getattr(item, field) for item in chosen}
        for field in ("max_abs_relative", "cosine_min", "kl_max", "top1_agreement")
    )
    return [
        _worst("max abs / scale", relative, "<=", limits.max_abs_relative, finite),
        _worst("cosine", cosines, ">=", limits.min_cosine, finite),
        _worst("KL", kls, "<=", limits.max_kl, finite, "nats, "),
        _worst("top-1 agreement", agreements, ">=", limits.min_agreement, finite),
        _check("top-1 drop", drop, "<=", limits.max_top1_drop, finite, f"on {images} images"),
        _check("pixel difference", pixel, "<=", limits.max_pixel_error, True, "in 1/255"),
    ]


def cosine(a_NK: NDArray[np.float64], b_NK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine of each pair of rows [N], in [-1, 1]; two zero rows are the same, one alone is not: 1 and 0."""
    # Scaled first, so that squares neither overflow nor vanish.
    units = []
    for rows_NK in (a_NK, b_NK):
        largest_N1 = np.abs(rows_NK).max(axis=1, keepdims=True)
        scaled_NK = rows_NK / np.where(largest_N1 == 0, 1, largest_N1)
        length_N1 = np.linalg.norm(scaled_NK, axis=1, keepdims=True)
        units.append(scaled_NK / np.where(length_N1 == 0, 1, length_N1))
    product_N = np.clip((units[0] * units[1]).sum(axis=1), -1, 1)
    both_zero_N = ~a_NK.any(axis=1) & ~b_NK.any(axis=1)
    return np.where(both_zero_N, 1.0, product_N)


def kl_divergence(a_NK: NDArray[np.float64], b_NK: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(softmax(a) || softmax(b)) of each pair of rows [N], in nats, at least 0."""
    log_p_NK, log_q_NK = _log_softmax(a_NK), _log_softmax(b_NK)
    # Rounding can leave the divergence of equal rows a hair below 0.
    divergence_N: NDArray[np.float64] = (np.exp(log_p_NK) * (log_p_NK - log_q_NK)).sum(axis=1)
    return np.maximum(divergence_N, 0.0)


def _log_softmax(logits_NK: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted_NK = logits_NK - logits_NK.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted_NK - np.log(np.exp(shifted_NK).sum(axis=1, keepdims=True))
    return result


def _relative(difference: float, scale: float) -> float:
    """A difference in units of the scale; a reference of zeros has none, and only zeros equal it."""
    if scale == 0:
        return 0.0 if difference == 0 else math.inf
    return difference / scale


def _top1_drop(reference: Accuracy, candidate: Accuracy) -> float:
    """Accuracy lost, a fraction; from counts, so that one image of 200 is 0.005 and no hair more."""
    if reference.images != candidate.images:
        raise ValueError(f"accuracies of {reference.images} and {candidate.images} images cannot be compared")
    images = reference.images
    lost = round(reference.top1.value * images) - round(candidate.top1.value * images)
    return lost / images


def _worst(
    name: str,
    values: Mapping[int, float],
    comparison: Literal["<=", ">="],
    limit: float,
    finite: bool,
    unit: str = "",
) -> Check:
    """Check the worst of some batches' values."""
    pick = max if comparison == "<=" else min
    batch = pick(values, key=lambda key: values[key])
    return _check(name, values[batch], comparison, limit, finite, f"{unit}worst at batch {batch}")


def _check(
    name: str, value: float, comparison: Literal["<=", ">="], limit: float, finite: bool, detail: str
) -> Check:
    if not finite:
        return Check(name=name, value=None, limit=limit, comparison=comparison, passed=False, detail=NOT_FINITE)
    if not math.isfinite(value):
        reason = "not measurable: the reference is zero everywhere"
        return Check(name=name, value=None, limit=limit, comparison=comparison, passed=False, detail=reason)
    passed = value <= limit if comparison == "<=" else value >= limit
    return Check(name=name, value=value, limit=limit, comparison=comparison, passed=passed, detail=detail)
