"""Scenarios on a clock that only moves by what is served, against what queueing theory says."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import pytest

from dskd_export.benchmark.loadgen import (
    METRICS,
    WallClock,
    draw_arrivals,
    measure_offline,
    measure_server,
    measure_stream,
    select_scenarios,
)

SERVICE_S = 0.010


class Virtual:
    """A clock, and a model that takes the times it is given."""

    def __init__(self, times_s: Iterable[float]) -> None:
        self.at_s, self.calls = 0.0, 0
        self._times = iter(times_s)

    def now(self) -> float:
        return self.at_s

    def wait_until(self, at_s: float) -> None:
        self.at_s = max(self.at_s, at_s)

    def __call__(self) -> None:
        self.calls += 1
        self.at_s += next(self._times)


def constant(seconds: float) -> Virtual:
    return Virtual(itertools.repeat(seconds))


def md1_within(waiting: float, load: float) -> float:
    """P(waiting time <= waiting services) of the queue M/D/1 (Erlang 1909), exactly: the sum alternates."""
    rho, x = Fraction(load).limit_denominator(10**6), Fraction(waiting).limit_denominator(10**6)
    total = Fraction(0)
    for k in range(math.floor(x) + 1):
        term = rho * (Fraction(k) - x)
        # e^-y of a rational in exact arithmetic: enough terms of its series for y up to 30.
        exponential = sum(Fraction((-term) ** n) / math.factorial(n) for n in range(0, 120))
        total += term**k / math.factorial(k) * exponential
    return float((1 - rho) * total)


def md1_largest_load(bound_services: float) -> float:
    """The load at which p99 of waiting and service is at the bound, in services."""
    low, high = 0.01, 0.99
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if md1_within(bound_services - 1, middle) >= 0.99 else (low, middle)
    return low


def test_the_formula_against_a_simulation() -> None:
    load, waits = 0.7, np.zeros(400_000)
    gaps = np.random.default_rng(0).exponential(size=len(waits)) / load
    for n in range(1, len(waits)):  # Lindley's recursion
        waits[n] = max(0.0, waits[n - 1] + 1 - gaps[n])
    for waiting in (0.5, 2.0, 5.3):
        assert md1_within(waiting, load) == pytest.approx((waits <= waiting).mean(), abs=0.006)


@pytest.mark.parametrize("bound_services", [3.0, 8.0])
def test_the_servers_rate_is_that_of_the_theory(bound_services: float) -> None:
    model = constant(SERVICE_S)
    found = measure_server(model, bound_services * SERVICE_S, seconds=600, clock=model, seed=0)
    expected = md1_largest_load(bound_services) / SERVICE_S
    assert found.value is not None
    assert found.value.value == pytest.approx(expected, rel=0.03)
    assert found.value.low <= expected <= found.value.high
    assert found.queries == model.calls


def test_a_bound_that_no_query_keeps() -> None:
    model = constant(SERVICE_S)
    found = measure_server(model, 0.5 * SERVICE_S, seconds=1, clock=model, seed=0)
    assert found.value is None
    assert found.reason == "a single query takes 10 ms at p99, the bound is 5 ms"


def test_arrivals_are_by_chance_and_the_same_for_every_rate() -> None:
    times = draw_arrivals(100.0, 100_000, seed=3)
    gaps = np.diff(times)
    assert gaps.mean() == pytest.approx(0.01, rel=0.02)
    assert gaps.std() == pytest.approx(0.01, rel=0.02)
    np.testing.assert_allclose(draw_arrivals(200.0, 100_000, seed=3), times / 2)


def test_streams_read_a_percentile() -> None:
    times = 0.001 * np.random.default_rng(1).lognormal(sigma=0.3, size=200_000)
    model = Virtual(times)
    found = measure_stream(model, 0.9, seconds=150, clock=model)
    assert found.value is not None
    assert found.value.value == pytest.approx(0.001 * math.exp(0.3 * 1.2815515655446), rel=0.01)
    assert found.value.low < found.value.value < found.value.high
    assert found.reason == ""
    assert found.seconds >= 150


def test_few_queries_are_told() -> None:
    model = constant(1.0)
    found = measure_stream(model, 0.99, seconds=1, clock=model)
    assert found.queries == 64
    assert "64 queries are too few for an interval of p99" in found.reason


def test_offline_counts_images() -> None:
    model = constant(0.02)
    found = measure_offline(model, images=16, seconds=10, clock=model)
    assert found.value is not None
    assert found.value.value == pytest.approx(800)
    assert found.value.high - found.value.low == pytest.approx(0, abs=1e-6)


def test_a_throttle_is_told_in_every_scenario() -> None:
    def slowing() -> Virtual:
        return Virtual(itertools.chain([0.01] * 500, itertools.repeat(0.015)))

    for run in (
        lambda model: measure_stream(model, 0.9, seconds=12, clock=model),
        lambda model: measure_offline(model, 8, seconds=12, clock=model),
    ):
        assert "drifted" in run(slowing()).reason


def test_the_wall_clock_comes_back_in_time() -> None:
    clock = WallClock()
    late = []
    for _ in range(20):
        due = clock.now() + 0.004
        clock.wait_until(due)
        late.append(clock.now() - due)
    assert min(late) >= 0
    assert np.median(late) < 0.05  # another process may have the core; it does not oversleep for ever
    clock.wait_until(clock.now() - 1)


def test_names() -> None:
    assert select_scenarios(["Offline", "SingleStream"]) == ["SingleStream", "Offline"]
    assert select_scenarios(["all"]) == ["SingleStream", "MultiStream", "Server", "Offline"]
    assert [METRICS[name] for name in select_scenarios(["all"])] == [
        "latency_p90_ms",
        "latency_p99_ms",
        "rate_per_s",
        "throughput_images_per_s",
    ]
