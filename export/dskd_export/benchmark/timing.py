"""Time calls: warm up until the rate settles, then take one time for every call.

A timed call has to block until its result is ready. Nothing is trimmed: the slowest call counts.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dskd_export.benchmark.statistics import TOLERANCE, latency_statistics, list_instabilities, spread
from dskd_export.documents.benchmark import Latency

Clock = Callable[[], float]

_WINDOWS = 3
# Long enough that a window holds many calls of a fast model, short enough to see the clocks rise.
_WINDOW_S = 0.2
_WINDOWS_IN_BOUND = 20


@dataclass(frozen=True)
class WarmUp:
    """Result of a warm-up.

    Attributes:
        iterations: calls made.
        seconds: their time.
        stable: the last three windows had the same rate.
        reason: why it is not stable, empty where it is.
    """

    iterations: int
    seconds: float
    stable: bool
    reason: str


@dataclass(frozen=True)
class Timing:
    """A measurement.

    Attributes:
        latency: its statistics.
        samples_s: float64, seconds of every measured call in order.
        began_s: start of the first measured call, on the clock of the measurement.
        ended_s: end of the last one.
    """

    latency: Latency
    samples_s: NDArray[np.float64]
    began_s: float
    ended_s: float


def time_calls(call: Callable[[], object], clock: Clock, *, count: int, seconds: float = 0.0) -> list[float]:
    """Time at least `count` calls for at least `seconds`; seconds of each."""
    samples_s: list[float] = []
    start = clock()
    while len(samples_s) < count or clock() - start < seconds:
        began = clock()
        call()
        samples_s.append(clock() - began)
    return samples_s


def warm_up(call: Callable[[], object], *, clock: Clock = time.perf_counter, max_seconds: float) -> WarmUp:
    """Call until three windows in a row have rates within 10 % of each other, or time is up.

    A window is at least 0.2 s (a twentieth of `max_seconds` where that is less) and one call. At
    least one call is made; a call that has begun is finished.

    Args:
        call: blocks until its result is ready.
        clock: seconds, monotonic.
        max_seconds: give up after this.
    """
    window_s = min(_WINDOW_S, max_seconds / _WINDOWS_IN_BOUND)
    rates: deque[float] = deque(maxlen=_WINDOWS)
    iterations = windows = calls = 0
    began = window_began = clock()
    while True:
        call()
        iterations += 1
        calls += 1
        now = clock()
        if now - window_began >= window_s and now > window_began:
            rates.append(calls / (now - window_began))
            windows += 1
            calls, window_began = 0, now
            if windows >= _WINDOWS and spread(*rates) <= TOLERANCE:
                return WarmUp(iterations, now - began, True, "")
        if now - began >= max_seconds:
            break
    if windows < _WINDOWS:
        reason = f"{max_seconds:g} s of warm-up held only {windows} of the {_WINDOWS} windows that are compared"
    else:
        reason = (
            f"after {max_seconds:g} s of warm-up the rate still differed by {100 * spread(*rates):.0f} % "
            f"between {_WINDOWS} windows in a row"
        )
    return WarmUp(iterations, now - began, False, reason)


def measure_latency(
    call: Callable[[], object],
    *,
    min_seconds: float,
    min_iterations: int,
    max_warmup_seconds: float,
    clock: Clock = time.perf_counter,
) -> Timing:
    """Warm up, then time every call until both minima are reached.

    Python's garbage collector is off meanwhile: its pauses are not the model's.

    Args:
        call: blocks until its result is ready.
        min_seconds: least sum of measured times.
        min_iterations: fewest measured calls.
        max_warmup_seconds: give up waiting for a steady rate after this.
        clock: seconds, monotonic.
    """
    warm = warm_up(call, clock=clock, max_seconds=max_warmup_seconds)
    samples: list[float] = []
    total = 0.0
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        began_s = clock()
        while total < min_seconds or len(samples) < min_iterations:
            began = clock()
            call()
            took = clock() - began
            samples.append(took)
            total += took
        ended_s = clock()
    finally:
        if collecting:
            gc.enable()
    samples_s = np.array(samples, dtype=np.float64)
    reasons = [*([warm.reason] if warm.reason else []), *list_instabilities(samples_s)]
    latency = latency_statistics(samples_s, warm.iterations, not reasons, "; ".join(reasons))
    return Timing(latency, samples_s, began_s, ended_s)


def add_disturbances(latency: Latency, causes: Sequence[str]) -> Latency:
    """Mark statistics as unstable for causes that other sensors saw."""
    if not causes:
        return latency
    reason = "; ".join([*([latency.reason] if latency.reason else []), *causes])
    return latency.model_copy(update={"stable": False, "reason": reason})
