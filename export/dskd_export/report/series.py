"""Curves for charts: smoothing, thinning and cumulative distributions. Pure numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
