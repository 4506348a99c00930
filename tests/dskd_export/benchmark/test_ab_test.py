"""Two interleaved models on a simulated noisy machine: how often the verdict is right."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from dskd_export.benchmark.ab_test import estimate_ratio, interleave, judge_ratio
from dskd_export.documents.base import Interval


class Machine:
    """One clock for both models. Its speed wanders over hundreds of calls, and every call has its own noise."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        count = 40_000
        wander = signal.lfilter([1], [1, -0.995], 0.01 * rng.normal(size=count))
        noise = 0.05 * rng.normal(size=count) + 0.5 * (rng.random(count) < 0.02)
        self._factors = np.exp(wander + noise).tolist()
        self.now, self.calls = 0.0, 0

    def clock(self) -> float:
        return self.now

    def model(self, milliseconds: float):
        def call() -> None:
            self.now += 1e-3 * milliseconds * self._factors[self.calls % len(self._factors)]
            self.calls += 1

        return call


def verdict(seed: int, slower: float) -> str:
    machine = Machine(seed)
    times = interleave(
        machine.model(1.0),
        machine.model(slower),
        min_seconds=2.0,
        block_seconds=0.01,
        seed=seed,
        clock=machine.clock,
    )
    return judge_ratio(estimate_ratio(times))


def test_a_model_against_itself_is_not_told_apart() -> None:
    verdicts = [verdict(seed, 1.0) for seed in range(100)]
    assert verdicts.count("not distinguishable") >= 95


def test_ten_percent_are_seen_and_in_which_direction() -> None:
    assert [verdict(seed, 1.1) for seed in range(100)].count("slower") >= 90
    assert [verdict(seed, 1 / 1.1) for seed in range(30)].count("faster") >= 27


def test_the_ratio_is_that_of_the_models() -> None:
    covered = 0
    for seed in range(60):
        machine = Machine(seed)
        models = machine.model(1.0), machine.model(1.25)
        times = interleave(*models, min_seconds=2.0, block_seconds=0.01, seed=seed, clock=machine.clock)
        ratio = estimate_ratio(times)
        assert ratio.value == pytest.approx(1.25, rel=0.05)
        covered += ratio.low <= 1.25 <= ratio.high
    assert covered >= 52


def test_both_minima_are_reached() -> None:
    machine = Machine(0)
    quick = interleave(
        machine.model(1.0), machine.model(1.0), min_seconds=0, block_seconds=0.0, seed=0, clock=machine.clock
    )
    assert len(quick) == 20
    assert machine.calls == 2 * (5 + 20 * (1 + 3))  # estimates, then blocks of three with a call before


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (1.02, 1.2, "slower"),
        (1.005, 1.2, "not distinguishable"),
        (0.8, 0.98, "faster"),
        (0.8, 0.995, "not distinguishable"),
        (0.9, 1.1, "not distinguishable"),
    ],
)
def test_the_whole_interval_decides(low: float, high: float, said: str) -> None:
    assert judge_ratio(Interval(value=(low + high) / 2, low=low, high=high)) == said


def test_ratios_that_are_all_alike_are_exact() -> None:
    ratio = estimate_ratio(np.full(30, np.log(1.5)))
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((1.5, 1.5, 1.5))
