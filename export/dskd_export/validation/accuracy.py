"""Accuracy and calibration of a classifier on labelled images, and what a second one loses against it.

Shape suffixes: B or N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_export.documents.base import Accuracy, Interval
from dskd_export.documents.validation import ClassDrop, PairedAccuracy
from dskd_export.errors import DataError
from dskd_export.runtime.batches import batch_logits
from dskd_export.runtime.runner import Runner
from dskd_export.validation.intervals import mcnemar_p, paired_bounds, paired_interval, wilson_interval

CALIBRATION_BINS = 15
"""As in Guo et al. 2017, so that the figure can be compared with others'."""

MIN_CLASS_IMAGES = 10
"""A class with fewer is not judged on its own: one image of it would be more than a tenth of its accuracy."""


def accuracy_of(logits_NK: NDArray[Any], labels_N: NDArray[np.integer[Any]]) -> Accuracy:
    """Top-1 and, from six classes on, top-5.

    Of equal logits the lower class comes first, as with argmax. An image with NaN or Inf among
    its logits counts as wrong.

    Raises:
        DataError: there are no images, or a label is not one of the K classes.
    """
    rank_N = _ranks(logits_NK, labels_N)
    images, classes = logits_NK.shape
    return Accuracy(
        top1=wilson_interval(int((rank_N < 1).sum()), images),
        top5=wilson_interval(int((rank_N < 5).sum()), images) if classes > 5 else None,
        images=images,
    )


def _ranks(logits_NK: NDArray[Any], labels_N: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """How many classes come before the label [N]: 0 where a model is right, K where a logit is not finite."""
    if logits_NK.ndim != 2 or labels_N.shape != logits_NK.shape[:1]:
        raise ValueError(f"logits {logits_NK.shape} and labels {labels_N.shape} do not fit together")
    images, classes = logits_NK.shape
    if not images:
        raise DataError("Cannot compute accuracy: the data set is empty.", "Choose a data set that holds images.")
    if labels_N.min() < 0 or labels_N.max() >= classes:
        wrong = int(labels_N.min()) if labels_N.min() < 0 else int(labels_N.max())
        raise DataError(
            f"Label {wrong} is not one of the model's {classes} classes.", "Use the data set of these classes."
        )
    of_label_N1 = np.take_along_axis(logits_NK, labels_N[:, None], axis=1)
    before_NK = np.arange(classes) < labels_N[:, None]
    ahead_NK = (logits_NK > of_label_N1) | ((logits_NK == of_label_N1) & before_NK)
    rank_N: NDArray[np.int64] = np.where(np.isfinite(logits_NK).all(axis=1), ahead_NK.sum(axis=1), classes)
    return rank_N


def is_right(logits_NK: NDArray[Any], labels_N: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Whether the first class is the label [N], as `accuracy_of` counts it."""
    right_N: NDArray[np.bool_] = _ranks(logits_NK, labels_N) == 0
    return right_N


def calibration_error(logits_NK: NDArray[Any], labels_N: NDArray[np.integer[Any]]) -> float:
    """Expected calibration error, a fraction in [0, 1]; NaN where a logit is not finite.

    Σ n_m / N · |accuracy_m − confidence_m| over 15 bins of equal width, ((m−1)/15, m/15], of the
    first class's probability (Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3).

    Raises:
        DataError: there are no images, or a label is not one of the K classes.
    """
    right_N = _ranks(logits_NK, labels_N) == 0
    if not np.isfinite(logits_NK).all():
        return float("nan")
    logits_NK = logits_NK.astype(np.float32, copy=False)
    odds_NK = np.exp(logits_NK - logits_NK.max(axis=1, keepdims=True))
    confidence_N = 1 / odds_NK.sum(axis=1, dtype=np.float64)
    bin_N = np.ceil(confidence_N * CALIBRATION_BINS).astype(np.int64) - 1
    gap_M = np.bincount(bin_N, weights=right_N - confidence_N, minlength=CALIBRATION_BINS)
    return float(np.abs(gap_M).sum() / len(labels_N))


def compare_accuracy(
    reference_NK: NDArray[Any],
    candidate_NK: NDArray[Any],
    labels_N: NDArray[np.integer[Any]],
    classes: Sequence[str] | None = None,
) -> PairedAccuracy:
    """What a candidate loses against a reference on the same labelled images.

    Args:
        reference_NK: logits [N, K] of the one that is right.
        candidate_NK: logits [N, K] of the other.
        labels_N: indices of classes.
        classes: K names for the message; None takes the indices.

    Raises:
        DataError: there are no images, or a label is not one of the K classes.
    """
    if reference_NK.shape != candidate_NK.shape:
        raise ValueError(f"logits {reference_NK.shape} and {candidate_NK.shape} are not of the same images")
    right_N, still_right_N = (_ranks(logits_NK, labels_N) == 0 for logits_NK in (reference_NK, candidate_NK))
    lost_N, gained_N = right_N & ~still_right_N, still_right_N & ~right_N
    lost, gained, images = int(lost_N.sum()), int(gained_N.sum()), len(labels_N)
    finite_N = np.isfinite(reference_NK).all(axis=1) & np.isfinite(candidate_NK).all(axis=1)
    same_N = finite_N & (reference_NK.argmax(axis=1) == candidate_NK.argmax(axis=1))
    return PairedAccuracy(
        images=images,
        lost=lost,
        gained=gained,
        top1_drop=paired_interval(lost, gained, images),
        mcnemar_p=mcnemar_p(lost, gained),
        agreement=wilson_interval(int(same_N.sum()), images),
        worst_class=find_worst_class(lost_N, gained_N, labels_N, classes),
        largest_class_images=int(np.bincount(labels_N).max()),
        reference_calibration_error=calibration_error(reference_NK, labels_N),
        calibration_error=calibration_error(candidate_NK, labels_N),
    )


def measure_drop(
    reference_NK: NDArray[Any], candidate_NK: NDArray[Any], labels_N: NDArray[np.integer[Any]]
) -> Interval:
    """Measure the top-1 that a candidate loses against a reference on the same images, a fraction.

    Raises what `compare_accuracy` does.
    """
    right_N, still_right_N = (_ranks(logits_NK, labels_N) == 0 for logits_NK in (reference_NK, candidate_NK))
    lost, gained = int((right_N & ~still_right_N).sum()), int((still_right_N & ~right_N).sum())
    return paired_interval(lost, gained, len(labels_N))


def find_worst_class(
    lost_N: NDArray[np.bool_],
    gained_N: NDArray[np.bool_],
    labels_N: NDArray[np.integer[Any]],
    classes: Sequence[str] | None = None,
) -> ClassDrop | None:
    """The class that is shown to have lost most, by the lower bound of its drop.

    By the bound and not by the drop itself, or the class with the fewest images would nearly always be
    the worst one. Where no class is shown to have lost anything, the one with the largest drop. None
    where no class has `MIN_CLASS_IMAGES`.

    Args:
        lost_N: images that the reference has right and the candidate wrong.
        gained_N: the other way round.
        labels_N: indices of classes.
        classes: their names; None takes the indices.
    """
    n_K = np.bincount(labels_N)
    index_M = np.flatnonzero(n_K >= MIN_CLASS_IMAGES)
    if not len(index_M):
        return None
    lost_M, gained_M = (
        np.bincount(labels_N, weights=which_N, minlength=len(n_K))[index_M] for which_N in (lost_N, gained_N)
    )
    n_M = n_K[index_M]
    low_M, high_M = paired_bounds(lost_M, gained_M, n_M)
    drop_M = (lost_M - gained_M) / n_M
    worst = int(np.lexsort((-drop_M, -np.maximum(low_M, 0)))[0])
    index = int(index_M[worst])
    return ClassDrop(
        name=str(index) if classes is None else classes[index],
        images=int(n_M[worst]),
        lost=int(lost_M[worst]),
        gained=int(gained_M[worst]),
        drop=Interval(value=float(drop_M[worst]), low=float(low_M[worst]), high=float(high_M[worst])),
    )


def evaluate_runner(
    runner: Runner,
    batches: Iterable[tuple[NDArray[np.float32], NDArray[np.integer[Any]]]],
    *,
    input_name: str = "input",
    output_name: str = "logits",
    on_batch: Callable[[int], None] | None = None,
) -> Accuracy:
    """Accuracy on labelled batches that need not fit into memory together.

    To compare two runners on the same images as well, keep the logits: `logits_of`, then
    `accuracy_of` and `compare_outputs`.

    Args:
        runner: the model.
        batches: input [B, C, H, W] and labels [B].
        on_batch: called with the number of images of each batch, for a progress display.

    Raises:
        DataError: there are no images, or a label is not one of the classes.
        ModelError: the model's output is not one row of logits an image.
    """
    logits, labels = [], []
    for input_BCHW, labels_B in batches:
        logits.append(batch_logits(runner, input_BCHW, input_name, output_name))
        labels.append(labels_B)
        if on_batch is not None:
            on_batch(len(labels_B))
    if not labels:
        raise DataError("Cannot compute accuracy: the data set is empty.", "Choose a data set that holds images.")
    return accuracy_of(np.concatenate(logits), np.concatenate(labels))
