"""How long a call takes: warm-up until the rate settles, then one time for every call.

A timed call has to block until its result is there. Nothing is trimmed: the slowest call counts.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dskd_export.benchmark_document import Latency

Clock = Callable[[], float]

TOLERANCE = 0.10
"""Rates, or medians, this close to each other count as the same: a fraction of the smaller one."""

_WINDOWS = 3
# Long enough that a window holds many calls of a fast model, short enough to see the clocks rise.
_WINDOW_S = 0.2
_WINDOWS_IN_BOUND = 20


@dataclass(frozen=True)
class WarmUp:
    """How a warm-up ended.

    Attributes:
        iterations: calls that were made.
        seconds: time that they took.
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
        began_s: when the first measured call began, of the clock that timed it.
        ended_s: when the last one ended.
    """

    latency: Latency
    samples_s: NDArray[np.float64]
    began_s: float
    ended_s: float


def warm_up(call: Callable[[], object], *, clock: Clock = time.perf_counter, max_seconds: float) -> WarmUp:
    """Call until three windows in a row have rates within 10 % of each other, or time is up.

    A window is at least 0.2 s (a twentieth of `max_seconds` where that is less) and one call. At
    least one call is made; a call that is under way when time is up is finished.

    Args:
        call: blocks until its result is there.
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

    Python's garbage collector rests meanwhile: its pauses are not the model's.

    Args:
        call: blocks until its result is there.
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
    reasons = [reason for reason in (warm.reason, drift(samples_s)) if reason]
    latency = latency_statistics(samples_s, warm.iterations, not reasons, "; ".join(reasons))
    return Timing(latency, samples_s, began_s, ended_s)


def with_disturbances(latency: Latency, causes: Sequence[str]) -> Latency:
    """The same statistics, unstable for these causes as well, which were seen beside the clock."""
    if not causes:
        return latency
    reason = "; ".join([*([latency.reason] if latency.reason else []), *causes])
    return latency.model_copy(update={"stable": False, "reason": reason})


def latency_statistics(
    samples_s: NDArray[np.float64], warmup_iterations: int, stable: bool, reason: str
) -> Latency:
    """Statistics of measured times, in milliseconds; percentiles interpolate linearly.

    Args:
        samples_s: seconds [N], N >= 1, each above 0.
        warmup_iterations: calls made before.
        stable: whether the rate had settled and did not drift.
        reason: why not.
    """
    if samples_s.ndim != 1 or not samples_s.size or not np.isfinite(samples_s).all() or samples_s.min() <= 0:
        raise ValueError("times must be one row of finite numbers above 0, at least one")
    times_ms = samples_s.astype(np.float64) * 1e3
    p50, p90, p95, p99, p999 = (float(value) for value in np.percentile(times_ms, [50, 90, 95, 99, 99.9]))
    mean = float(times_ms.mean())
    return Latency(
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        p999_ms=p999,
        mean_ms=mean,
        min_ms=float(times_ms.min()),
        max_ms=float(times_ms.max()),
        coefficient_of_variation=float(times_ms.std()) / mean,
        iterations=len(times_ms),
        warmup_iterations=warmup_iterations,
        stable=stable,
        reason=reason,
    )


def drift(samples_s: NDArray[np.float64]) -> str:
    """Say how the last third differs from the first where their medians are over 10 % apart; else empty."""
    third = len(samples_s) // 3
    if not third:
        return ""
    first, last = (float(np.median(part)) for part in (samples_s[:third], samples_s[-third:]))
    if spread(first, last) <= TOLERANCE:
        return ""
    return (
        f"the median drifted from {first * 1e3:.3g} ms in the first third "
        f"to {last * 1e3:.3g} ms in the last third of the calls"
    )


def spread(*values: float) -> float:
    """How far positive values are apart, as a fraction of the smallest."""
    return max(values) / min(values) - 1
