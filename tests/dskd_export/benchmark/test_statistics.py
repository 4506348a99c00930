"""Percentiles of known distributions, intervals that cover the truth, and disturbances that were planted."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))
from interval_coverage import KINDS, draw_times, find_percentile

from dskd_export.benchmark.statistics import (
    PERCENTILES,
    _order_statistics,
    _t,
    correlation_time,
    describe_bursts,
    describe_drift,
    describe_steps,
    latency_statistics,
    list_instabilities,
    mean_interval,
    percentile_interval,
)

rng = np.random.default_rng(7)


@pytest.mark.parametrize("kind", ["independent", "two modes"])
def test_percentiles_within_one_percent_of_the_truth(kind: str) -> None:
    found = latency_statistics(draw_times(kind, 60_000, np.random.default_rng(3)) / 1e3, 0, True, "")
    assert found.p50_ms == pytest.approx(find_percentile(kind, 0.5), rel=0.01)
    assert found.p99_ms == pytest.approx(find_percentile(kind, 0.99), rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_intervals_cover_the_truth(kind: str, share: float) -> None:
    """95 of 100, give or take 3: counted over 600 repeats, so that chance adds one more at most."""
    generator, true = np.random.default_rng(11), find_percentile(kind, share)
    found = [percentile_interval(draw_times(kind, 3000, generator), share) for _ in range(600)]
    known = [interval for interval in found if interval is not None]
    assert len(known) > 500
    covered = np.mean([interval.low <= true <= interval.high for interval in known])
    assert 0.92 <= covered <= 0.98


def test_the_mean_is_covered_as_well() -> None:
    generator = np.random.default_rng(5)
    true = math.exp(0.25**2 / 2)
    for kind in ("independent", "AR(1) 0.5"):
        found = [mean_interval(draw_times(kind, 1000, generator)) for _ in range(400)]
        covered = np.mean([interval.low <= true <= interval.high for interval in found if interval is not None])
        assert 0.92 <= covered <= 0.98


def test_a_percentile_with_too_few_calls_beyond_it_has_no_interval() -> None:
    found = latency_statistics(draw_times("independent", 200, rng), 0, True, "")
    assert set(found.intervals_ms) == {"p50", "p90", "p95", "mean"}
    assert set(latency_statistics(np.array([1.0, 2.0]), 0, True, "").intervals_ms) == set()


def test_of_few_independent_calls_nothing_is_said() -> None:
    wandering = draw_times("AR(1) 0.9", 400, np.random.default_rng(8))
    assert len(wandering) / correlation_time((wandering <= np.median(wandering)).astype(float)) < 30
    assert percentile_interval(wandering, 0.5) is None


@given(st.integers(2, 3000), st.sampled_from(sorted(PERCENTILES.values())))
def test_order_statistics_against_scipys_binomial(count: int, share: float) -> None:
    ranks = _order_statistics(count, share)
    binomial = stats.binom(count, share)
    if ranks is None:
        assert binomial.cdf(0) > 0.025 or binomial.cdf(count - 1) < 0.975
        return
    low, high = ranks
    assert binomial.cdf(low - 1) <= 0.025 + 1e-9
    assert binomial.cdf(low) > 0.025 - 1e-9
    assert binomial.cdf(high - 1) >= 0.975 - 1e-9
    assert binomial.cdf(high - 2) < 0.975 + 1e-9


@pytest.mark.parametrize("degrees", [5, 9, 30, 1000])
def test_students_t_against_scipy(degrees: int) -> None:
    assert _t(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=0.002)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_the_correlation_time_of_a_known_process(phi: float) -> None:
    from scipy import signal

    series = signal.lfilter([1], [1, -phi], np.random.default_rng(1).normal(size=100_000))
    assert correlation_time(series) == pytest.approx((1 + phi) / (1 - phi), rel=0.1)


def test_constant_times_are_independent_and_exact() -> None:
    assert correlation_time(np.ones(50)) == 1.0
    interval = percentile_interval(np.full(100, 0.5), 0.5)
    assert interval is not None
    assert (interval.low, interval.value, interval.high) == (0.5, 0.5, 0.5)


# --- what makes a measurement list_instabilities


def steady(count: int = 3000) -> np.ndarray:
    return 0.01 * draw_times("independent", count, np.random.default_rng(2)) ** 0.2  # a twentieth of spread


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_distribution_that_does_not_change_is_steady(kind: str) -> None:
    for seed in range(20):
        assert list_instabilities(draw_times(kind, 2000, np.random.default_rng(seed))) == []
    assert list_instabilities(steady()) == []


def test_a_planted_drift() -> None:
    times_s = steady() * np.linspace(1.0, 1.3, 3000)
    assert "the median drifted from" in describe_drift(times_s)
    assert len(list_instabilities(times_s)) == 1


def test_a_planted_throttle_in_the_middle() -> None:
    times_s = steady()
    times_s[1000:2000] *= 1.4
    assert describe_drift(times_s) == ""
    assert "the median of a tenth of the calls went from 9." in describe_steps(times_s)
    assert any("went from" in reason for reason in list_instabilities(times_s))


def test_a_planted_neighbour() -> None:
    times_s = steady()
    for start in range(100, 3000, 500):
        times_s[start : start + 40] *= 2.5
    assert describe_drift(times_s) == ""
    assert describe_bursts(times_s) == "8.0 % of the calls took over 1.5 times the median, and they came in bursts"


def test_slow_calls_that_come_one_by_one_are_the_models_own() -> None:
    times_s = steady()
    times_s[np.random.default_rng(4).random(3000) < 0.05] *= 2.5
    assert list_instabilities(times_s) == []


def test_too_few_calls_say_nothing() -> None:
    assert describe_steps(np.array([1.0] * 20 + [2.0] * 20)) == ""
