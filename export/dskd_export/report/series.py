"""Smooth, thin and accumulate curves for charts; intervals of a difference and a ratio of two accuracies. Pure.

Intervals by variance estimates recovery (MOVER): Newcombe 1998, "Interval estimation for the difference between
independent proportions", method 10; Donner and Zou 2012, "Closed-form confidence intervals for functions of the
normal mean and standard deviation", for the ratio. Both treat the two as independent. Here both models saw the
same images and tend to err on the same ones, so the true interval is narrower: these err on the side of caution.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dskd_export.documents.base import Interval


def difference(first: Interval, second: Interval) -> Interval:
    """`first - second`, a fraction in [-1, 1], with its 95 % interval."""
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Interval(value=value, low=value - below, high=value + above)


def ratio(first: Interval, second: Interval) -> Interval | None:
    """`first / second` with its 95 % interval; None where the second may be 0."""
    a, low_a, high_a = first.value, first.low, first.high
    b, low_b, high_b = second.value, second.low, second.high
    if low_b <= 0 or b <= 0:
        return None
    # The limits are the roots r of: the MOVER limit of (a - r b) is 0.
    under = max(0.0, (a * b) ** 2 - low_a * high_b * (2 * a - low_a) * (2 * b - high_b))
    over = max(0.0, (a * b) ** 2 - high_a * low_b * (2 * a - high_a) * (2 * b - low_b))
    return Interval(
        value=a / b,
        low=(a * b - math.sqrt(under)) / (high_b * (2 * b - high_b)),
        high=(a * b + math.sqrt(over)) / (low_b * (2 * b - low_b)),
    )


Array = npt.NDArray[np.float64]


def smooth(values: Array, window: int) -> Array:
    """Centred moving average; at the ends the window is cut off, not padded.

    Args:
        values: N numbers; NaN stands for "no value here" and stays NaN.
        window: numbers averaged, at least 1; an even window counts as the next smaller odd one.
    """
    count = len(values)
    half = max(0, (window - 1) // 2)
    known = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    number = np.concatenate([[0], np.cumsum(known)])
    index = np.arange(count)
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, count)
    return np.where(known, (total[high] - total[low]) / np.maximum(number[high] - number[low], 1), np.nan)


def thin(count: int, most: int) -> npt.NDArray[np.int64]:
    """At most `most` of the indices 0..count-1, evenly spread, first and last included."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.round(np.linspace(0, count - 1, most)).astype(np.int64))


def window_for(count: int) -> int:
    """Smoothing window for a curve of `count` points: 2 % of it, odd, 1 for short curves."""
    return max(1, count // 50) | 1


def distribution(samples: Array, most: int = 200) -> tuple[Array, Array]:
    """The empirical cumulative distribution, thinned.

    Args:
        samples: N >= 1 measurements.
        most: about how many points; both ends and the tail's percentiles are always among them.

    Returns:
        Sorted values and, for each, the fraction of the samples that are at most as large.
    """
    ordered = np.sort(samples)
    count = len(ordered)
    tail = [int(np.ceil(q * count)) - 1 for q in (0.5, 0.9, 0.95, 0.99, 0.999)]
    index = np.union1d(thin(count, most), np.clip(tail, 0, count - 1))
    return ordered[index], (index + 1) / count
