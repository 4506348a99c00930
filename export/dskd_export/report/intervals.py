"""Intervals of a difference and of a ratio of two accuracies, from the intervals of each.

Method of variance estimates recovery (MOVER): Newcombe 1998, "Interval estimation for the difference
between independent proportions", method 10; Donner and Zou 2012, "Closed-form confidence intervals
for functions of the normal mean and standard deviation", for the ratio. Both treat the two as
independent. Here both models saw the same images and tend to err on the same ones, so the true
interval is narrower: these err on the side of caution.
"""

from __future__ import annotations

import math

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
