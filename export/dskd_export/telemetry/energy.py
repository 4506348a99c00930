"""Energy of a window of time from samples of power or of an energy counter. Pure.

Between two samples power is taken to change linearly (trapezoidal rule), and an energy counter to rise
linearly; values at the window's ends are interpolated. Beyond the first and the last sample the nearest
value holds.

A gap is a stretch without samples that is longer than three intervals, where the interval is the one that was
requested or the median of the measured ones, whichever is longer. Gaps are bridged in the same way, counted, and
widen the interval of the result: within a gap power may have been anywhere between the least and the most that
was seen. Where more than a fifth of the window lies in gaps there is no energy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dskd_export.documents.base import Interval

Samples = NDArray[np.float64]

GAP_INTERVALS = 3.0
MOST_IN_GAPS = 0.2
FEWEST_SAMPLES = 10
DISAGREEMENT = 0.1
"""Larger differences between counter and samples are reported."""

_MOST_BLOCKS = 10
# Quantiles 0.975 of Student's t for 1 to 9 degrees of freedom: no scipy on a device.
_T_975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)


class NoEnergy(Exception):
    """Samples that do not give an energy; the message is the reason that a person reads."""


@dataclass(frozen=True)
class Gaps:
    """Where a window has no samples.

    Attributes:
        count: gaps that reach into the window.
        seconds: of the window that lie in them.
        share: of the window, in [0, 1].
    """

    count: int
    seconds: float
    share: float


@dataclass(frozen=True)
class Energy:
    """Energy of a window.

    Attributes:
        joules: with its 95 % interval.
        seconds: length of the window.
        gaps: within it.
        samples: within it.
    """

    joules: Interval
    seconds: float
    gaps: Gaps
    samples: int

    @property
    def watts(self) -> float:
        """Mean power."""
        return self.joules.value / self.seconds


def energy_from_power(
    times_s: Samples, power_w: Samples, start_s: float, end_s: float, interval_s: float
) -> Energy:
    """Energy of a window from samples of power.

    The interval is Student's t over the mean powers of up to ten equal stretches of the window, which need
    not be independent from sample to sample; it shows how steady the power was, not how exact the sensor is.

    Args:
        times_s: [N], rising.
        power_w: [N].
        start_s: beginning of the window, of the same clock.
        end_s: its end.
        interval_s: requested time between samples.

    Raises:
        NoEnergy: the samples are too few, or too much of the window lies in gaps.
    """
    gaps = _checked_gaps(times_s, start_s, end_s, interval_s)
    inside = (times_s >= start_s) & (times_s <= end_s)
    edges_s = _edges(start_s, end_s, int(inside.sum()))
    energies_j = np.diff(_integral(times_s, power_w, edges_s))
    near_w = power_w[_neighbourhood(times_s, start_s, end_s)]
    unknown_j = gaps.seconds * float(near_w.max() - near_w.min()) / 2
    return _energy(energies_j, end_s - start_s, unknown_j, gaps, int(inside.sum()))


def energy_from_counter(
    times_s: Samples, counter_j: Samples, start_s: float, end_s: float, interval_s: float
) -> Energy:
    """Energy of a window from samples of a counter, with the arguments and the interval of `energy_from_power`.

    What a counter counts within a gap is not lost: gaps are counted, but only one at an end of the window
    leaves its share unknown.

    Raises:
        NoEnergy: as there; or the counter fell or stood still.
    """
    gaps = _checked_gaps(times_s, start_s, end_s, interval_s)
    inside = (times_s >= start_s) & (times_s <= end_s)
    near = _neighbourhood(times_s, start_s, end_s)
    steps_j = np.diff(counter_j[near])
    if (steps_j < 0).any():
        raise NoEnergy("the energy counter started again during the measurement")
    if not (steps_j > 0).any():
        raise NoEnergy("the energy counter stood still during the measurement")
    edges_s = _edges(start_s, end_s, int(inside.sum()))
    # Linearly on beyond the ends, at the mean power in between.
    mean_w = float((counter_j[near][-1] - counter_j[near][0]) / (times_s[near][-1] - times_s[near][0]))
    outside_s = np.minimum(edges_s - times_s[0], 0) + np.maximum(edges_s - times_s[-1], 0)
    energies_j = np.diff(np.interp(edges_s, times_s, counter_j) + mean_w * outside_s)
    return _energy(energies_j, end_s - start_s, 0.0, gaps, int(inside.sum()))


def subtract_idle(energy: Energy, idle: Energy) -> Interval:
    """Joules of a window beyond those of as long a time of rest; both intervals count.

    May be below 0, within its interval, if the work is too small to measure.
    """
    scale = energy.seconds / idle.seconds
    value = energy.joules.value - idle.joules.value * scale
    half = math.hypot(_half(energy.joules), _half(idle.joules) * scale)
    return Interval(value=value, low=value - half, high=value + half)


def divide_by_images(joules: Interval, images: int) -> Interval:
    """The mJ that one of so many images costs."""
    factor = 1e3 / images
    return Interval(value=joules.value * factor, low=joules.low * factor, high=joules.high * factor)


def find_gaps(times_s: Samples, start_s: float, end_s: float, interval_s: float) -> Gaps:
    """The gaps of a window, by the rule at the top of this module."""
    near_s = times_s[_neighbourhood(times_s, start_s, end_s)]
    inner_s = np.diff(near_s)
    usual_s = max(interval_s, float(np.median(inner_s)) if len(inner_s) else 0.0)
    # Without a sample before the window it begins with a stretch that has none, and likewise at its end.
    bounds_s = np.concatenate([[min(start_s, near_s[0])], near_s, [max(end_s, near_s[-1])]])
    long = np.diff(bounds_s) > GAP_INTERVALS * usual_s
    lost_s = np.minimum(bounds_s[1:], end_s) - np.maximum(bounds_s[:-1], start_s)
    reach_in = long & (lost_s > 0)
    seconds = float(lost_s[reach_in].sum())
    return Gaps(int(reach_in.sum()), seconds, seconds / (end_s - start_s))


def _checked_gaps(times_s: Samples, start_s: float, end_s: float, interval_s: float) -> Gaps:
    if not end_s > start_s:
        raise ValueError(f"a window from {start_s} to {end_s} has no length")
    inside = int(((times_s >= start_s) & (times_s <= end_s)).sum())
    if inside < FEWEST_SAMPLES:
        raise NoEnergy(
            f"{inside} sample{'' if inside == 1 else 's'} in {end_s - start_s:.2g} s, "
            f"an energy needs {FEWEST_SAMPLES}"
        )
    gaps = find_gaps(times_s, start_s, end_s, interval_s)
    if gaps.share > MOST_IN_GAPS:
        raise NoEnergy(
            f"{100 * gaps.share:.0f} % of the measured time has no samples, "
            f"{100 * MOST_IN_GAPS:.0f} % may lack them"
        )
    return gaps


def _edges(start_s: float, end_s: float, samples: int) -> Samples:
    """Equal stretches, at least two samples each on the average."""
    return np.linspace(start_s, end_s, min(_MOST_BLOCKS, samples // 2) + 1)


def _neighbourhood(times_s: Samples, start_s: float, end_s: float) -> slice:
    """The samples of a window and the nearest one on each side."""
    first = max(0, int(np.searchsorted(times_s, start_s, side="right")) - 1)
    last = min(len(times_s), int(np.searchsorted(times_s, end_s, side="left")) + 1)
    return slice(first, last)


def _integral(times_s: Samples, power_w: Samples, at_s: Samples) -> Samples:
    """Joules up to each of some moments, from the first of them on."""
    inner = (times_s > at_s[0]) & (times_s < at_s[-1])
    grid_s = np.union1d(times_s[inner], at_s)
    grid_w = np.interp(grid_s, times_s, power_w)
    sums_j = np.concatenate([[0.0], np.cumsum(np.diff(grid_s) * (grid_w[1:] + grid_w[:-1]) / 2)])
    return sums_j[np.searchsorted(grid_s, at_s)]


def _energy(energies_j: Samples, seconds: float, unknown_j: float, gaps: Gaps, samples: int) -> Energy:
    joules, blocks = float(energies_j.sum()), len(energies_j)
    half = _T_975[blocks - 2] * float(energies_j.std(ddof=1)) * math.sqrt(blocks) + unknown_j
    return Energy(Interval(value=joules, low=joules - half, high=joules + half), seconds, gaps, samples)


def _half(interval: Interval) -> float:
    return (interval.high - interval.low) / 2
