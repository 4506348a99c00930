from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dskd_export.benchmark.statistics import describe_drift, latency_statistics, spread
from dskd_export.benchmark.timing import add_disturbances, measure_latency, warm_up


class FakeService:
    """A clock that moves only while the service is called, by the times it is given."""

    def __init__(self, times_s: Iterable[float]) -> None:
        self.now = 1000.0
        self.calls = 0
        self._times = iter(times_s)

    def clock(self) -> float:
        return self.now

    def __call__(self) -> None:
        self.calls += 1
        self.now += next(self._times)


def constant(seconds: float) -> FakeService:
    return FakeService(itertools.repeat(seconds))


# --- statistics


@given(st.lists(st.floats(1e-6, 10), min_size=1, max_size=60))
def test_statistics_against_scipy(times: list[float]) -> None:
    samples = np.array(times)
    found = latency_statistics(samples, 7, True, "")
    for field, share in [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999)]:
        expected = stats.mstats.mquantiles(samples, share, alphap=1, betap=1)[0] * 1e3  # type 7, linear
        assert getattr(found, f"{field}_ms") == pytest.approx(expected, rel=1e-9)
    assert found.mean_ms == pytest.approx(math.fsum(times) / len(times) * 1e3)
    assert (found.min_ms, found.max_ms) == pytest.approx((min(times) * 1e3, max(times) * 1e3))
    assert found.coefficient_of_variation == pytest.approx(stats.variation(samples), abs=1e-9)
    assert (found.iterations, found.warmup_iterations, found.stable, found.reason) == (len(times), 7, True, "")


def test_known_percentiles() -> None:
    found = latency_statistics(np.arange(1, 1002) / 1e3, 0, False, "because")
    assert (found.p50_ms, found.p90_ms, found.p99_ms, found.p999_ms) == pytest.approx((501, 901, 991, 1000))
    assert not found.stable
    assert found.reason == "because"


@pytest.mark.parametrize("samples", [[], [0.0], [-1.0], [math.nan], [math.inf], [[1.0]]])
def test_times_that_are_none(samples: list) -> None:
    with pytest.raises(ValueError, match="above 0"):
        latency_statistics(np.array(samples), 0, True, "")


# --- warm-up


def test_a_steady_service_needs_three_windows() -> None:
    service = constant(0.01)
    found = warm_up(service, clock=service.clock, max_seconds=10)
    assert found.stable
    assert found.reason == ""
    # Windows of 0.2 s at 10 ms a call; a rounding in the clock may add a call to each.
    assert found.iterations == service.calls
    assert 60 <= found.iterations <= 63
    assert found.seconds == pytest.approx(0.01 * service.calls)


def test_waits_until_the_clocks_have_risen() -> None:
    # Each call takes 10 % less than the one before, down to 1 ms.
    service = FakeService(max(0.001, 0.1 * 0.9**index) for index in itertools.count())
    found = warm_up(service, clock=service.clock, max_seconds=10)
    assert found.stable
    assert service.calls > 44  # 0.1 * 0.9**44 = 1 ms: the last windows are at full speed
    assert found.seconds < 2.5


def test_a_service_that_never_settles_is_given_up() -> None:
    # Each call is a window, and every second one takes twice as long.
    service = FakeService(itertools.cycle([0.25, 0.5]))
    found = warm_up(service, clock=service.clock, max_seconds=5)
    assert not found.stable
    assert "after 5 s of warm-up the rate still differed by 100 %" in found.reason
    assert 5 <= found.seconds < 5.5


def test_slow_calls_are_a_window_each() -> None:
    service = constant(2.0)
    found = warm_up(service, clock=service.clock, max_seconds=10)
    assert (found.stable, found.iterations) == (True, 3)


def test_too_few_windows() -> None:
    service = constant(60.0)
    found = warm_up(service, clock=service.clock, max_seconds=10)
    assert (found.stable, found.iterations, found.seconds) == (False, 1, 60)
    assert "held only 1 of the 3 windows" in found.reason


@pytest.mark.parametrize(("last", "stable"), [(1.09, True), (1.12, False)])
def test_ten_percent(last: float, stable: bool) -> None:
    service = FakeService([1.0, 1.0, last, *[100.0] * 9])
    found = warm_up(service, clock=service.clock, max_seconds=3.0)
    assert found.stable is stable
    assert found.iterations == 3


def test_a_clock_that_stands_still_during_some_calls() -> None:
    service = FakeService(itertools.cycle([0.0, 0.0, 0.3]))
    assert warm_up(service, clock=service.clock, max_seconds=10).stable


# --- measuring


@pytest.mark.parametrize(
    ("seconds", "iterations", "expected"), [(1.0, 10, 100), (0.05, 50, 50), (0.0, 7, 7), (0.5, 1, 50)]
)
def test_both_minima_are_reached(seconds: float, iterations: int, expected: int) -> None:
    service = constant(0.01)
    found = measure_latency(
        service, min_seconds=seconds, min_iterations=iterations, max_warmup_seconds=5, clock=service.clock
    )
    assert found.latency.iterations == len(found.samples_s)
    assert expected <= len(found.samples_s) <= expected + 1  # a rounding in the sum may ask for one more
    assert found.samples_s.dtype == np.float64
    np.testing.assert_allclose(found.samples_s, 0.01, rtol=1e-9)
    assert found.latency.stable
    assert found.latency.p50_ms == pytest.approx(10)
    assert found.latency.coefficient_of_variation == pytest.approx(0, abs=1e-9)
    assert found.latency.warmup_iterations + len(found.samples_s) == service.calls


def test_every_sample_is_kept_in_order() -> None:
    warm = [0.1] * 6
    times = [0.1, 0.1, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9]
    service = FakeService([*warm, *times])
    found = measure_latency(service, min_seconds=0, min_iterations=9, max_warmup_seconds=10, clock=service.clock)
    assert found.latency.warmup_iterations == 6
    np.testing.assert_allclose(found.samples_s, times, rtol=1e-9)
    assert found.latency.max_ms == pytest.approx(900)  # nothing is trimmed
    assert found.latency.stable  # an outlier is no drift


def test_the_window_holds_the_measured_calls_alone() -> None:
    service = FakeService([*[0.1] * 6, 0.1, 0.1, 0.3])
    found = measure_latency(service, min_seconds=0, min_iterations=3, max_warmup_seconds=10, clock=service.clock)
    assert (found.began_s, found.ended_s) == pytest.approx((1000.6, 1001.1))


def test_disturbances_make_a_latency_unstable() -> None:
    steady = latency_statistics(np.full(5, 0.1), 3, True, "")
    assert add_disturbances(steady, []) is steady
    found = add_disturbances(steady, ["the clock fell", "the GPU was hot"])
    assert not found.stable
    assert found.reason == "the clock fell; the GPU was hot"
    assert add_disturbances(found, ["once more"]).reason == "the clock fell; the GPU was hot; once more"
    assert found.p50_ms == steady.p50_ms


def test_drift_is_seen() -> None:
    service = FakeService(itertools.chain([0.1] * 6, np.linspace(0.1, 0.2, 30)))
    found = measure_latency(service, min_seconds=0, min_iterations=30, max_warmup_seconds=10, clock=service.clock)
    assert not found.latency.stable
    assert "drifted from 116 ms in the first third to 184 ms" in found.latency.reason


def test_an_unsettled_warm_up_makes_the_measurement_unstable() -> None:
    service = FakeService(itertools.chain([2.0], itertools.repeat(0.1)))
    found = measure_latency(service, min_seconds=0, min_iterations=12, max_warmup_seconds=1, clock=service.clock)
    assert not found.latency.stable
    assert "1 of the 3 windows" in found.latency.reason
    assert "drifted" not in found.latency.reason


def test_both_reasons_are_given() -> None:
    service = FakeService([2.0, *[0.1] * 6, *[0.2] * 6])
    found = measure_latency(service, min_seconds=0, min_iterations=12, max_warmup_seconds=1, clock=service.clock)
    assert "windows that are compared; the median drifted" in found.latency.reason


@pytest.mark.parametrize(
    ("times", "drifts"),
    [
        ([1.0, 2.0], False),  # too few for thirds
        ([1.0, 9.0, 1.09], False),
        ([1.0, 9.0, 1.11], True),
        ([1.11, 9.0, 1.0], True),
        ([1.0, 1.0, 5.0, 1.0, 1.0, 1.0, 5.0, 1.0, 1.0], False),
    ],
)
def test_drift(times: list[float], drifts: bool) -> None:
    assert bool(describe_drift(np.array(times))) is drifts


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5))
def test_spread(values: list[float]) -> None:
    assert spread(*values) == pytest.approx((max(values) - min(values)) / min(values), abs=1e-9)
    assert spread(*values) == spread(*reversed(values)) >= 0


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_rests_while_measuring_and_comes_back(enabled: bool) -> None:
    states: list[bool] = []
    service = constant(0.1)

    def call() -> None:
        states.append(gc.isenabled())
        service()

    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        measure_latency(call, min_seconds=0, min_iterations=3, max_warmup_seconds=10, clock=service.clock)
        assert states[-3:] == [False] * 3
        assert gc.isenabled() is enabled
        broken = FakeService([0.1] * 8)
        with pytest.raises(StopIteration):
            measure_latency(broken, min_seconds=9, min_iterations=3, max_warmup_seconds=9, clock=broken.clock)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()


def test_with_the_real_clock() -> None:
    found = measure_latency(lambda: time.sleep(0.005), min_seconds=0.05, min_iterations=5, max_warmup_seconds=0.2)
    assert found.latency.min_ms >= 5
    assert found.samples_s.sum() >= 0.05
    assert found.latency.min_ms <= found.latency.p50_ms <= found.latency.p999_ms <= found.latency.max_ms
