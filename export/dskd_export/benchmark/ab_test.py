"""Which of two models is faster? Calls of both in turns, and an interval for the ratio of their medians.

One after the other, two models are measured under two conditions: clocks, caches and neighbours change meanwhile.
In short blocks of calls in an order that is drawn anew each time, both see the same. A pair of blocks gives one
log ratio of medians. Neighbouring pairs are alike, so the interval of their mean, by Student's t, counts how many
of them are independent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dskd_export.benchmark.statistics import mean_interval
from dskd_export.documents.base import Interval
from dskd_export.documents.benchmark import Faster

Call = Callable[[], object]

INDIFFERENT = 0.01
"""Models whose times differ by less than this share are not told apart: no one ships another for that."""

_LEAST_BLOCK_CALLS = 3
_FEWEST_PAIRS = 20


@dataclass(frozen=True)
class Turns:
    """What two models gave in turns.

    Attributes:
        log_ratios: of the medians of each pair of blocks, second over first [P], in the order of measuring.
        calls: of each model, all blocks together.
    """

    log_ratios: NDArray[np.float64]
    calls: int


def take_turns(
    first: Call,
    second: Call,
    *,
    min_seconds: float,
    block_seconds: float,
    seed: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Turns:
    """Time both in pairs of blocks; which goes first in a pair is drawn.

    Args:
        first: blocks until its result is there.
        second: the same of the other model.
        min_seconds: least time over all.
        block_seconds: of a block; it has three calls at least.
        seed: of the order.
        clock: seconds, monotonic.
    """
    rng = np.random.default_rng(seed)
    calls = (first, second)
    counts = [_calls_of_a_block(call, block_seconds, clock) for call in calls]
    ratios: list[float] = []
    began = clock()
    while clock() - began < min_seconds or len(ratios) < _FEWEST_PAIRS:
        medians = [0.0, 0.0]
        for which in rng.permutation(2):
            medians[which] = _median_of_a_block(calls[which], counts[which], clock)
        ratios.append(math.log(medians[1] / medians[0]))
    return Turns(np.array(ratios), len(ratios) * sum(counts) // 2)


def ratio_of(turns: Turns) -> Interval:
    """Time of the second over that of the first, with its 95 % interval."""
    found = mean_interval(turns.log_ratios)
    if found is None:  # so correlated that hardly anything is known
        values = np.sort(turns.log_ratios)
        found = Interval(value=float(values.mean()), low=float(values[0]), high=float(values[-1]))
    return Interval(value=math.exp(found.value), low=math.exp(found.low), high=math.exp(found.high))


def verdict_of(ratio: Interval) -> Faster:
    """What the second model is, beside the first: by the whole interval, and by more than one percent."""
    if ratio.low > 1 + INDIFFERENT:
        return "slower"
    if ratio.high < 1 / (1 + INDIFFERENT):
        return "faster"
    return "not distinguishable"


def _calls_of_a_block(call: Call, seconds: float, clock: Callable[[], float]) -> int:
    """As many as fill a block, by the median of a few calls."""
    times = []
    for _ in range(_LEAST_BLOCK_CALLS + 2):
        began = clock()
        call()
        times.append(clock() - began)
    return max(_LEAST_BLOCK_CALLS, round(seconds / max(float(np.median(times)), 1e-9)))


def _median_of_a_block(call: Call, count: int, clock: Callable[[], float]) -> float:
    call()  # what the other model left in the caches is not this one's
    times = []
    for _ in range(count):
        began = clock()
        call()
        times.append(clock() - began)
    return float(np.median(times))
