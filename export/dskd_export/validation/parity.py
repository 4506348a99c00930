"""Are two runners the same function, and are their inputs the same? Numbers only; `checks` judges them.

All differences are relative to the scale of the reference's output, and all maths is float64.
Shape suffixes: B or N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_export.bundle.golden import Golden
from dskd_export.documents.validation import Parity, PreprocessParity
from dskd_export.errors import DataError, ModelError
from dskd_export.runtime.metrics import cosine, kl_divergence
from dskd_export.runtime.runner import Array

# Images that are compared at once: float64 copies of all logits would be the largest thing in memory.
_ROWS = 1024
_DISTANCES = ("max_abs", "mean_abs", "cosine_min", "cosine_mean", "kl_max", "kl_mean")


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
        candidate: logits [N, K] that are compared with them.
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
    finite_N = np.isfinite(reference).all(axis=1) & np.isfinite(candidate).all(axis=1)
    finite = bool(finite_N.all())
    same_N = finite_N & (reference.argmax(axis=1) == candidate.argmax(axis=1))
    scale = float(np.abs(reference).max()) if np.isfinite(reference).all() else math.nan
    distance = _distance(reference, candidate) if finite else dict.fromkeys(_DISTANCES, math.nan)
    return Parity(
        reference=reference_name,
        candidate=candidate_name,
        batch=batch,
        images=len(reference),
        output_scale=scale,
        max_abs_relative=_relative(distance["max_abs"], scale),
        mean_abs_relative=_relative(distance.pop("mean_abs"), scale),
        **distance,
        top1_agreement=float(same_N.mean()),
        top5_agreement=_top5_agreement(reference, candidate, finite_N),
        finite=finite,
    )


def _distance(reference_NK: NDArray[Any], candidate_NK: NDArray[Any]) -> dict[str, float]:
    absolute, cosines, divergences = [], [], []
    for start in range(0, len(reference_NK), _ROWS):
        a_NK, b_NK = (
            logits_NK[start : start + _ROWS].astype(np.float64) for logits_NK in (reference_NK, candidate_NK)
        )
        difference_NK = np.abs(b_NK - a_NK)
        absolute.append((difference_NK.max(), difference_NK.sum()))
        cosines.append(cosine(a_NK, b_NK))
        divergences.append(kl_divergence(a_NK, b_NK))
    cosine_N, kl_N = np.concatenate(cosines), np.concatenate(divergences)
    largest, total = max(one for one, _ in absolute), sum(one for _, one in absolute)
    values = (largest, total / reference_NK.size, cosine_N.min(), cosine_N.mean(), kl_N.max(), kl_N.mean())
    return dict(zip(_DISTANCES, map(float, values), strict=True))


def _top5_agreement(
    reference_NK: NDArray[Any], candidate_NK: NDArray[Any], finite_N: NDArray[np.bool_]
) -> float | None:
    """Share of the reference's first five classes among the candidate's; an image with NaN or Inf has none."""
    if reference_NK.shape[1] < 6:
        return None
    first_NK, second_NK = (_first_five(logits_NK[finite_N]) for logits_NK in (reference_NK, candidate_NK))
    return float((first_NK & second_NK).sum() / (5 * len(finite_N)))


def _first_five(logits_NK: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether a class is one of the first five; of equal logits the lower class comes first, as with argmax."""
    fifth_N1 = np.partition(logits_NK, -5, axis=1)[:, -5, None]
    above_NK, equal_NK = logits_NK > fifth_N1, logits_NK == fifth_N1
    room_N1 = 5 - above_NK.sum(axis=1, keepdims=True)
    first: NDArray[np.bool_] = above_NK | (equal_NK & (equal_NK.cumsum(axis=1) <= room_N1))
    return first


def compare_inputs(
    reference_BCHW: NDArray[np.float32], candidate_BCHW: NDArray[np.float32], std: Sequence[float]
) -> PreprocessParity:
    """Compare preprocessed, normalised images of the same files.

    Args:
        reference_BCHW: as timm makes them.
        candidate_BCHW: as the device makes them, in the same order.
        std: of the normalisation that the model was trained with, C values for pixels in [0, 1].

    Returns:
        Differences in units of 1/255, after normalisation, and the number of differing pixels
        (a pixel counts once, whatever channels differ).

    Raises:
        DataError: there are no images, or they are of different size.
    """
    if reference_BCHW.shape != candidate_BCHW.shape:
        raise DataError(
            f"Images are {list(reference_BCHW.shape[1:])} in the reference and "
            f"{list(candidate_BCHW.shape[1:])} in the candidate.",
            "Export the bundle again: its spec does not fit the model.",
        )
    if not len(reference_BCHW):
        raise DataError("There are no images to compare.", "Choose a data set that holds images.")
    step_C = np.asarray(std, dtype=np.float64) * 255
    worst_C, differing = np.zeros(len(step_C)), 0
    for reference_CHW, candidate_CHW in zip(reference_BCHW, candidate_BCHW, strict=True):
        if np.array_equal(reference_CHW, candidate_CHW):  # nearly always, and ten times as fast as the rest
            continue
        difference_CHW = np.abs(candidate_CHW - reference_CHW)
        worst_C = np.maximum(worst_C, difference_CHW.max(axis=(1, 2)))
        # Less than half a step is the rounding of a division and no other pixel.
        differing += int((difference_CHW * step_C[:, None, None] > 0.5).any(axis=0).sum())
    return PreprocessParity(
        images=len(reference_BCHW),
        max_abs_pixel=round(float((worst_C * step_C).max()), 3),
        max_abs_normalised=float(worst_C.max()),
        differing_pixels=differing,
    )


def join_inputs(parts: Sequence[PreprocessParity]) -> PreprocessParity:
    """Comparisons of several lots of images, as one of all of them."""
    return PreprocessParity(
        images=sum(part.images for part in parts),
        max_abs_pixel=max(part.max_abs_pixel for part in parts),
        max_abs_normalised=max(part.max_abs_normalised for part in parts),
        differing_pixels=sum(part.differing_pixels for part in parts),
    )


def _relative(difference: float, scale: float) -> float:
    """A difference in units of the scale; a reference of zeros has none, and only zeros equal it."""
    if scale == 0:
        return 0.0 if difference == 0 else math.inf
    return difference / scale


class GoldenSearch:
    """Compares a bundle's golden images with the same ones among the validation images.

    Attributes:
        golden: the images.
        found: golden image -> its labels in the data; several where one picture is there under several classes.
    """

    def __init__(self, golden: Golden) -> None:
        self.golden = golden
        self.found: dict[int, set[int]] = {}
        self._other_input: set[int] = set()
        self._position = {str(digest): index for index, digest in enumerate(golden.image_sha256)}

    def find(self, sha256: Sequence[str], labels_B: NDArray[np.int64], inputs_B: Array) -> None:
        """Compare those that are among some images.

        Args:
            sha256: of each image's pixels.
            labels_B: their classes.
            inputs_B: what the device feeds for them.
        """
        for row, digest in enumerate(sha256):
            index = self._position.get(digest)
            if index is None:
                continue
            self.found.setdefault(index, set()).add(int(labels_B[row]))
            if not np.array_equal(self.golden.input[index], inputs_B[row]):
                self._other_input.add(index)

    def differences(self) -> list[str]:
        """List what differs, in words."""
        found = [
            f"the input of golden image {i} is not what the spec makes of it" for i in sorted(self._other_input)
        ]
        for index, labels in sorted(self.found.items()):
            label = int(self.golden.labels[index])
            if label not in labels:
                found.append(f"the label of golden image {index} is {label}, in the data it is {min(labels)}")
        return found
