"""Integration against closed forms, counters against integrals, and gaps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from dskd_export.documents.base import Interval
from dskd_export.telemetry import energy as module
from dskd_export.telemetry.energy import (
    FEWEST_SAMPLES,
    Energy,
    Gaps,
    NoEnergy,
    divide_by_images,
    energy_from_counter,
    energy_from_power,
    find_gaps,
    subtract_idle,
)


def sine_j(start: float, end: float, mean: float, swing: float, hertz: float, phase: float) -> float:
    """Integral of mean + swing * sin(2 pi hertz t + phase) in closed form."""
    w = 2 * math.pi * hertz
    return mean * (end - start) + swing / w * (math.cos(w * start + phase) - math.cos(w * end + phase))


def jittered(rng: np.random.Generator, start: float, end: float, interval: float) -> np.ndarray:
    """Times about an interval apart, none of them where the window begins or ends."""
    times = np.arange(start - 2.3 * interval, end + 2.9 * interval, interval)
    return times + rng.uniform(-0.3, 0.3, len(times)) * interval


traces = st.fixed_dictionaries(
    {
        "start": st.floats(0, 1e5),
        "seconds": st.floats(2, 20),
        "mean": st.floats(1, 500),
        "swing": st.floats(0, 1),
        "hertz": st.floats(0.01, 1),
        "phase": st.floats(0, 6.3),
        "seed": st.integers(0, 10**6),
    }
)


@settings(deadline=None)  # a busy machine is no fault
@given(traces)
def test_a_sine_within_one_percent(trace: dict[str, float]) -> None:
    start, end = trace["start"], trace["start"] + trace["seconds"]
    shape = (trace["mean"], 0.9 * trace["swing"] * trace["mean"], trace["hertz"], trace["phase"])
    times = jittered(np.random.default_rng(int(trace["seed"])), start, end, 0.1)
    power = shape[0] + shape[1] * np.sin(2 * math.pi * shape[2] * times + shape[3])
    found = energy_from_power(times, power, start, end, 0.1)
    assert found.joules.value == pytest.approx(sine_j(start, end, *shape), rel=0.01)
    assert found.gaps == Gaps(0, 0.0, 0.0)
    assert found.seconds == pytest.approx(trace["seconds"])


@settings(deadline=None)
@given(traces, st.floats(0.02, 0.19), st.floats(0, 1))
def test_a_sine_with_a_gap_within_five_percent_and_flagged(
    trace: dict[str, float], share: float, where: float
) -> None:
    start, end = trace["start"], trace["start"] + trace["seconds"]
    hole = share * trace["seconds"]
    assume(0.45 < hole < 0.5 / trace["hertz"])  # longer than three intervals, shorter than half a period
    shape = (trace["mean"], 0.3 * trace["swing"] * trace["mean"], trace["hertz"], trace["phase"])
    times = jittered(np.random.default_rng(int(trace["seed"])), start, end, 0.1)
    first = start + where * (trace["seconds"] - hole)
    times = times[(times < first) | (times > first + hole)]
    power = shape[0] + shape[1] * np.sin(2 * math.pi * shape[2] * times + shape[3])
    try:
        found = energy_from_power(times, power, start, end, 0.1)
    except NoEnergy:
        assert find_gaps(times, start, end, 0.1).share > 0.2  # the samples beside the hole made it larger
        return
    exact = sine_j(start, end, *shape)
    assert found.joules.value == pytest.approx(exact, rel=0.05)
    assert found.gaps.count == 1
    assert found.gaps.seconds == pytest.approx(hole, abs=0.35)
    # Where the gap hides power, the interval says so.
    assert found.joules.low - 0.01 * exact <= exact <= found.joules.high + 0.01 * exact


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=30, max_size=60), st.floats(0.1, 0.9), st.floats(0.1, 0.9))
def test_any_power_against_scipy(power: list[float], head: float, tail: float) -> None:
    """Exactly what lies between the ends: scipy's trapezoids over a fine grid of the same lines."""
    times = np.arange(len(power)) * 0.1
    start, end = times[2] + head * 0.1, times[-4] + tail * 0.1
    found = energy_from_power(times, np.array(power), start, end, 0.1)
    knots = times[(times > start) & (times < end)]
    grid = np.concatenate([[start], knots, [end]])
    expected = integrate.trapezoid(np.interp(grid, times, power), grid)
    assert found.joules.value == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_what_lies_outside_the_window_does_not_count() -> None:
    times = np.arange(0, 10, 0.1)
    power = np.where((times > 2.95) & (times < 7.05), 5.0, 1000.0)
    assert energy_from_power(times, power, 3.0, 7.0, 0.1).joules.value == pytest.approx(20.0)


def test_a_window_that_samples_do_not_reach() -> None:
    """The nearest value holds, and a long stretch is a gap."""
    times = np.arange(1.0, 9.0, 0.1)
    power = np.full(len(times), 7.0)
    found = energy_from_power(times, power, 0.2, 9.2, 0.1)
    assert found.joules.value == pytest.approx(63.0)
    assert found.gaps.count == 1
    assert found.gaps.seconds == pytest.approx(0.8)  # at the beginning; 0.3 s at the end are no gap


# --- gaps


@pytest.mark.parametrize(
    ("removed", "expected"),
    [
        ((9, 9), Gaps(0, 0, 0)),
        ((4.95, 5.15), Gaps(0, 0, 0)),  # two samples: 0.3 s
        ((4.95, 5.25), Gaps(1, 0.4, 0.04)),
        ((4.95, 5.85), Gaps(1, 1.0, 0.1)),
        ((-1, 0.55), Gaps(1, 0.6, 0.06)),  # no sample before the window
        ((9.55, 12), Gaps(1, 0.5, 0.05)),  # none after it
    ],
)
def test_gaps(removed: tuple[float, float], expected: Gaps) -> None:
    times = np.round(np.arange(-0.2, 10.3, 0.1), 3)
    times = times[(times < removed[0]) | (times > removed[1])]
    found = find_gaps(times, 0.0, 10.0, 0.1)
    assert found.count == expected.count
    assert (found.seconds, found.share) == pytest.approx((expected.seconds, expected.share), abs=1e-6)


def test_a_source_slower_than_asked_has_no_gaps() -> None:
    assert find_gaps(np.arange(0, 20, 1.0), 1.0, 18.0, 0.05) == Gaps(0, 0, 0)


def test_a_gap_only_counts_as_far_as_it_is_measured() -> None:
    times = np.concatenate([[0.0], np.arange(5, 10, 0.1)])
    assert find_gaps(times, 4.0, 9.0, 0.1).seconds == pytest.approx(1.0)


def test_too_much_in_gaps() -> None:
    times = np.concatenate([np.arange(0, 5, 0.1), np.arange(8, 10, 0.1)])
    with pytest.raises(NoEnergy, match="31 % of the measured time has no samples, 20 % may lack them"):
        energy_from_power(times, np.ones(len(times)), 0.0, 9.9, 0.1)


@pytest.mark.parametrize(("count", "word"), [(0, "0 samples"), (1, "1 sample"), (9, "9 samples")])
def test_too_few_samples(count: int, word: str) -> None:
    times = np.arange(count) * 0.1
    with pytest.raises(NoEnergy, match=f"{word} in 1 s, an energy needs {FEWEST_SAMPLES}"):
        energy_from_power(times, np.ones(count), 0.0, 1.0, 0.1)


def test_a_window_without_length() -> None:
    with pytest.raises(ValueError, match="no length"):
        energy_from_power(np.arange(20.0), np.ones(20), 3.0, 3.0, 0.1)


# --- counters


@settings(deadline=None)
@given(traces)
def test_a_counter_and_the_samples_agree(trace: dict[str, float]) -> None:
    start, end = 100.0, 100.0 + trace["seconds"]
    shape = (trace["mean"], 0.5 * trace["swing"] * trace["mean"], trace["hertz"], trace["phase"])
    times = jittered(np.random.default_rng(int(trace["seed"])), start, end, 0.1)
    counter = np.array([sine_j(0, at, *shape) for at in times])
    found = energy_from_counter(times, counter, start, end, 0.1)
    assert found.joules.value == pytest.approx(sine_j(start, end, *shape), rel=0.02)


def test_a_counter_loses_nothing_in_a_gap() -> None:
    times = np.concatenate([np.arange(0, 4, 0.1), np.arange(5.5, 10.2, 0.1)])
    power = np.where((times > 4) & (times < 5.5), 500.0, 10.0)
    counter = np.where(times < 4, 10 * times, 10 * times + 490 * 1.5)  # 500 W in the gap, which no sample saw
    found = energy_from_counter(times, counter, 0.05, 10.0, 0.1)
    assert found.joules.value == pytest.approx(10 * 9.95 + 490 * 1.5)
    assert found.gaps.count == 1
    assert energy_from_power(times, power, 0.05, 10.0, 0.1).joules.value == pytest.approx(10 * 9.95)


def test_a_counter_beyond_its_samples_goes_on_as_before() -> None:
    times = np.arange(1.0, 9.01, 0.1)
    found = energy_from_counter(times, 3 * times, 0.8, 9.2, 0.1)
    assert found.joules.value == pytest.approx(3 * 8.4)


@pytest.mark.parametrize(
    ("step", "reason"), [(-5.0, "the energy counter started again"), (0.0, "the energy counter stood still")]
)
def test_a_counter_that_cannot_be_used(step: float, reason: str) -> None:
    times = np.arange(0, 10, 0.1)
    counter = np.zeros(100) if step == 0 else np.where(times < 5, 2 * times, 2 * times + step)
    with pytest.raises(NoEnergy, match=reason):
        energy_from_counter(times, counter, 1.0, 9.0, 0.1)


# --- intervals


def test_the_quantiles_are_those_of_students_t() -> None:
    assert pytest.approx([stats.t.ppf(0.975, df) for df in range(1, 10)], abs=1e-4) == module._T_975


def test_a_steady_power_has_no_width() -> None:
    found = energy_from_power(np.arange(0, 10, 0.1), np.full(100, 4.0), 1.0, 9.0, 0.1)
    assert found.joules.low == pytest.approx(32.0)
    assert found.joules.high == pytest.approx(32.0)
    assert found.watts == pytest.approx(4.0)


@pytest.mark.parametrize("memory", [0.0, 0.7])
def test_the_interval_covers_the_mean(memory: float) -> None:
    """95 % of the intervals should; noise that remembers itself is what one interval a sample would get wrong."""
    rng = np.random.default_rng(0)
    times = np.arange(0, 10.2, 0.05)
    covered = 0
    for _ in range(400):
        noise = rng.normal(size=len(times) + 50)
        for index in range(1, len(noise)):
            noise[index] = memory * noise[index - 1] + math.sqrt(1 - memory**2) * noise[index]
        found = energy_from_power(times, 20 + noise[50:], 0.02, 10.0, 0.05)
        covered += found.joules.low <= 20 * 9.98 <= found.joules.high
    assert 0.91 <= covered / 400 <= 0.98


def test_above_idle() -> None:
    work = Energy(Interval(value=100, low=97, high=103), 10.0, Gaps(0, 0, 0), 100)
    idle = Energy(Interval(value=8, low=7.2, high=8.8), 2.0, Gaps(0, 0, 0), 40)
    found = subtract_idle(work, idle)
    assert found.value == pytest.approx(60.0)
    assert found.high - found.value == pytest.approx(math.hypot(3, 4))
    image = divide_by_images(found, 1000)
    assert (image.value, image.low, image.high) == pytest.approx((60, 55, 65))
