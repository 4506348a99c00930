"""Shares of images and their differences, with 95 % intervals; from counts alone.

A candidate and its reference see the same images, so their accuracies are compared pair by pair: only
the images count on which one is right and the other wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dskd_export.documents.base import Interval
from dskd_export.errors import DataError

_Z = NormalDist().inv_cdf(0.975)
_MOST_IMAGES = 1e9  # nobody has more, so there is no point in naming a larger number


def wilson_interval(successes: float, n: float) -> Interval:
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


def paired_interval(lost: float, gained: float, n: float) -> Interval:
    """Share lost minus share gained among n pairs, a fraction in [-1, 1], with its 95 % interval.

    The score interval of Tango 1998, "Equivalence test and confidence interval for the difference in
    proportions for the paired-sample design". It needs no pair that differs: with none, its ends are
    ±z²/(n + z²).

    Args:
        lost: pairs whose first member is right and whose second is wrong.
        gained: pairs the other way round.
        n: all pairs.

    Raises:
        DataError: n is 0.
    """
    low, high = paired_bounds([lost], [gained], [n])
    return Interval(value=(lost - gained) / n, low=float(low[0]), high=float(high[0]))


def paired_bounds(
    lost: ArrayLike, gained: ArrayLike, n: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper bounds [M] of `paired_interval` for M groups of pairs at once.

    Raises:
        DataError: a group has no pairs.
        ValueError: more pairs differ than there are.
    """
    b_M, c_M, n_M = (np.asarray(value, dtype=np.float64) for value in (lost, gained, n))
    if (n_M < 1).any():
        raise DataError("There is no difference on no images.", "Choose a data set that holds images.")
    if (b_M < 0).any() or (c_M < 0).any() or (b_M + c_M > n_M * (1 + 1e-12)).any():
        raise ValueError("lost and gained must be counts that make no more than n together")
    value_M = (b_M - c_M) / n_M
    below_M, above_M = -np.ones_like(value_M), np.ones_like(value_M)
    low_M = _bisect(lambda d: _score(d, b_M, c_M, n_M) < _Z, below_M, value_M)
    high_M = _bisect(lambda d: _score(d, b_M, c_M, n_M) < -_Z, value_M, above_M)
    return low_M, high_M


def _score(
    d_M: NDArray[np.float64], b_M: NDArray[np.float64], c_M: NDArray[np.float64], n_M: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Tango's statistic of the hypothesis that the difference is d: about normal, falling in d."""
    # The share gained that is likeliest under the hypothesis: the larger root of a quadratic.
    linear_M = (2 * n_M - b_M + c_M) * d_M - b_M - c_M
    under_M = np.maximum(linear_M**2 + 8 * n_M * c_M * d_M * (1 - d_M), 0)
    gained_M = (np.sqrt(under_M) - linear_M) / (4 * n_M)
    variance_M = n_M * np.maximum(2 * gained_M + d_M * (1 - d_M), 0)
    distance_M = b_M - c_M - n_M * d_M
    with np.errstate(divide="ignore", invalid="ignore"):
        score_M = distance_M / np.sqrt(variance_M)
    return np.where(distance_M == 0, 0.0, score_M)


def _bisect(
    is_above: Callable[[NDArray[np.float64]], NDArray[np.bool_]],
    low_M: NDArray[np.float64],
    high_M: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Find where a condition turns true between two ends, by bisection."""
    for _ in range(60):
        middle_M = (low_M + high_M) / 2
        above_M = is_above(middle_M)
        low_M, high_M = np.where(above_M, low_M, middle_M), np.where(above_M, middle_M, high_M)
    return (low_M + high_M) / 2


def mcnemar_p(lost: int, gained: int) -> float:
    """Exact two-sided p-value of McNemar's test: would chance alone split the pairs that differ so unevenly?

    Twice the smaller tail of a binomial distribution with p = 1/2, at most 1; 1 where no pair differs.
    """
    differing = lost + gained
    tail: int = sum(math.comb(differing, k) for k in range(min(lost, gained) + 1))
    return min(1.0, float(2 * tail / 2**differing))


def images_for_drop(lost: float, gained: float, n: float, limit: float) -> int | None:
    """Images on which the same shares would have the upper bound of their drop at the limit, or below.

    None where no number of images would do: the drop itself is at the limit or above it.
    """
    if (lost - gained) / n >= limit:
        return None
    return _fewest(lambda factor: paired_interval(lost * factor, gained * factor, n * factor).high <= limit, n)


def images_for_share(successes: float, n: float, limit: float) -> int | None:
    """Images on which the same share would have its lower Wilson bound at the limit, or above.

    None where no number of images would do.
    """
    if successes / n <= limit:
        return None
    return _fewest(lambda factor: wilson_interval(successes * factor, n * factor).low >= limit, n)


def round_up(count: int) -> int:
    """Round a number of images up to two significant digits: it is an estimate."""
    step = int(10 ** max(0, math.floor(math.log10(count)) - 1))
    return -(-count // step) * step


def _fewest(holds: Callable[[float], Any], n: float) -> int | None:
    """The least multiple of n images for which a condition holds that holds for all larger ones."""
    low = high = 1.0
    while not holds(high):
        low, high = high, 2 * high
        if high * n > _MOST_IMAGES:
            return None
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return math.ceil(high * n)
