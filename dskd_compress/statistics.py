"""Means over seeds and their intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dskd_export.documents.base import Interval


def mean_with_interval(values: Sequence[float]) -> Interval | None:
    """Mean and its 95 % interval by Student's t with n - 1 degrees of freedom.

    For paired differences, give the differences: what both members of a pair share cancels.

    Args:
        values: one independent measurement each, for example one a seed.

    Returns:
        None with fewer than two values: nothing is then known of their spread.
    """
    if len(values) < 2:
        return None
    from scipy import stats

    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    half = float(stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / len(array) ** 0.5)
    return Interval(value=mean, low=mean - half, high=mean + half)
