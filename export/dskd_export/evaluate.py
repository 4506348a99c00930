"""Accuracy of a classifier on labelled images, with its interval.

Shape suffixes: B or N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_export.documents import Accuracy, Interval
from dskd_export.errors import DataError
from dskd_export.runtime.batches import batch_logits, logits_of
from dskd_export.runtime.runner import Runner

_Z = NormalDist().inv_cdf(0.975)


def wilson_interval(successes: int, n: int) -> Interval:
    """A share with its 95 % Wilson score interval (Wilson 1927), fractions in [0, 1].

    (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n) with p = successes/n and z = 1.96.

    Raises:
        DataError: n is 0.
    """
    if n < 1:
        raise DataError("There is no accuracy of no images.", "Choose a data set that holds images.")
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no share")
    p = successes / n
    scale = 1 + _Z**2 / n
    centre = (p + _Z**2 / (2 * n)) / scale
    half = _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2)) / scale
    # At the ends the bound is exact, where rounding would leave it a hair inside or outside.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(value=p, low=low, high=high)


def accuracy_of(logits_NK: NDArray[Any], labels_N: NDArray[np.integer[Any]]) -> Accuracy:
    """Top-1 and, from six classes on, top-5.

    Of equal logits the lower class comes first, as with argmax. An image with NaN or Inf among
    its logits counts as wrong.

    Raises:
        DataError: there are no images, or a label is not one of the K classes.
    """
    if logits_NK.ndim != 2 or labels_N.shape != logits_NK.shape[:1]:
        raise ValueError(f"logits {logits_NK.shape} and labels {labels_N.shape} do not fit together")
    images, classes = logits_NK.shape
    if not images:
        raise DataError("There is no accuracy of no images.", "Choose a data set that holds images.")
    if labels_N.min() < 0 or labels_N.max() >= classes:
        wrong = int(labels_N.min()) if labels_N.min() < 0 else int(labels_N.max())
        raise DataError(
            f"Label {wrong} is not one of the model's {classes} classes.", "Use the data set of these classes."
        )
    of_label_N1 = np.take_along_axis(logits_NK, labels_N[:, None], axis=1)
    before_NK = np.arange(classes) < labels_N[:, None]
    ahead_NK = (logits_NK > of_label_N1) | ((logits_NK == of_label_N1) & before_NK)
    rank_N = np.where(np.isfinite(logits_NK).all(axis=1), ahead_NK.sum(axis=1), classes)
    return Accuracy(
        top1=wilson_interval(int((rank_N < 1).sum()), images),
        top5=wilson_interval(int((rank_N < 5).sum()), images) if classes > 5 else None,
        images=images,
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
        on_batch: told the number of images of each batch, for a progress display.

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
        raise DataError("There is no accuracy of no images.", "Choose a data set that holds images.")
    return accuracy_of(np.concatenate(logits), np.concatenate(labels))


__all__ = ["accuracy_of", "evaluate_runner", "logits_of", "wilson_interval"]
