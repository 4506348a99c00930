"""The four scenarios of MLPerf LoadGen on one model: how the load comes decides what is read off.

    SingleStream   the next query when the last one is done                   p90 of the latency
    MultiStream    eight images a query, the next when the last is done        p99 of the latency
    Server         queries come by chance (Poisson), whether or not one waits  largest rate whose p99 keeps a bound
    Offline        all images are there                                        images a second

Terms, percentiles and the eight images are LoadGen's (mlcommons/inference, loadgen/mlperf.conf). LoadGen runs
for ten minutes and more; the time here is given. For results to submit, use LoadGen itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dskd_export.benchmark.statistics import percentile_interval, unsteady
from dskd_export.documents.base import Interval
from dskd_export.documents.benchmark import ScenarioName

Call = Callable[[], object]
Samples = NDArray[np.float64]

SCENARIOS: tuple[ScenarioName, ...] = ("SingleStream", "MultiStream", "Server", "Offline")
MULTI_STREAM_IMAGES = 8
_FEWEST_QUERIES = 64
# LoadGen asks for 270,336 queries of a Server run, so that p99 is known to a twentieth of a percent; with so few
# as here its interval says how well it is known.
_FEWEST_ARRIVALS = 1000
_RATE_TOLERANCE = 0.005
_SPIN_S = 0.002


class Clock(Protocol):
    """Time, and waiting for it."""

    def now(self) -> float:
        """Seconds, monotonic."""
        ...

    def wait_until(self, at_s: float) -> None:
        """Come back when it is so late, or at once where it is later."""
        ...


class WallClock:
    """The real one. Sleeping comes back late, so the last two milliseconds are spent spinning."""

    def now(self) -> float:
        """Seconds."""
        return time.perf_counter()

    def wait_until(self, at_s: float) -> None:
        """Sleep, then spin."""
        left = at_s - time.perf_counter()
        if left > _SPIN_S:
            time.sleep(left - _SPIN_S)
        while time.perf_counter() < at_s:
            pass


@dataclass(frozen=True)
class Measured:
    """What a scenario gave.

    Attributes:
        value: in the unit of the scenario: seconds, queries a second, or images a second; None: see the reason.
        queries: that were made, trials of a search counted.
        seconds: that it took.
        reason: why there is no value, or why it is not to be trusted; empty where neither is so.
    """

    value: Interval | None
    queries: int
    seconds: float
    reason: str = ""


def stream(call: Call, share: float, seconds: float, clock: Clock) -> Measured:
    """SingleStream and MultiStream: a percentile of the latency of queries that follow each other.

    Args:
        call: one query; blocks until its result is there.
        share: the percentile, in (0, 1).
        seconds: least time.
        clock: that it is timed by.
    """
    samples: list[float] = []
    began = clock.now()
    while clock.now() - began < seconds or len(samples) < _FEWEST_QUERIES:
        start = clock.now()
        call()
        samples.append(clock.now() - start)
    times = np.array(samples)
    interval = percentile_interval(times, share)
    reasons = unsteady(times)
    if interval is None:
        value = float(np.quantile(times, share))
        interval = Interval(value=value, low=float(times.min()), high=float(times.max()))
        reasons.append(f"{len(times)} queries are too few to tell how well p{100 * share:g} is known")
    return Measured(interval, len(times), clock.now() - began, "; ".join(reasons))


def offline(call: Call, images: int, seconds: float, clock: Clock) -> Measured:
    """Offline: images a second, with a 95 % interval over ten parts of the time.

    Args:
        call: one batch; blocks until its result is there.
        images: of it.
        seconds: least time.
        clock: that it is timed by.
    """
    ends = [clock.now()]
    while ends[-1] - ends[0] < seconds or len(ends) <= _FEWEST_QUERIES:
        call()
        ends.append(clock.now())
    took = np.diff(np.array(ends))
    value = images * len(took) / float(took.sum())
    rates = np.array([images * len(part) / part.sum() for part in np.array_split(took, 10)])
    half = 2.262 * float(rates.std(ddof=1)) / math.sqrt(len(rates))  # Student's t, 9 degrees of freedom
    interval = Interval(value=value, low=value - half, high=value + half)
    return Measured(interval, len(took), ends[-1] - ends[0], "; ".join(unsteady(took)))


def server(call: Call, bound_s: float, seconds: float, clock: Clock, seed: int) -> Measured:
    """Server: the largest rate of arrivals whose p99 latency stays under a bound, by bisection.

    A query waits while another is served. The arrivals of all trials are the same draws of chance, stretched to
    the rate, so that a higher rate is never luckier. The interval lies between the largest rate that keeps the
    bound with 95 % confidence and the smallest that surely does not.

    Args:
        call: one query of one image; blocks until its result is there.
        bound_s: of the p99 latency, from arrival to result.
        seconds: least time of each trial of the search.
        clock: that it is timed by.
        seed: of the arrivals.
    """
    began, alone = clock.now(), []
    for _ in range(_FEWEST_QUERIES):
        start = clock.now()
        call()
        alone.append(clock.now() - start)
    service_s = float(np.median(alone))
    if float(np.quantile(alone, 0.99)) > bound_s:
        reason = f"a query alone takes {1e3 * float(np.quantile(alone, 0.99)):.3g} ms at p99"
        return Measured(None, len(alone), clock.now() - began, f"{reason}, the bound is {1e3 * bound_s:g} ms")
    trials: list[Trial] = []
    high = 1 / service_s  # nothing serves more than it can
    low = 0.0
    while high - low > _RATE_TOLERANCE * high:
        rate = (low + high) / 2 if low else high / 2
        trial = _trial(call, rate, bound_s, seconds, clock, seed)
        trials.append(trial)
        if trial.p99_s <= bound_s:
            low = rate
        elif low or rate > 1e-3 / service_s:
            high = rate
        else:
            break
    queries = len(alone) + sum(trial.queries for trial in trials)
    if not low:
        return Measured(None, queries, clock.now() - began, "even queries that hardly ever meet miss the bound")
    surely = max((trial.rate for trial in trials if trial.high_s <= bound_s), default=0.0)
    never = min((trial.rate for trial in trials if trial.low_s > bound_s), default=1 / service_s)
    interval = Interval(value=low, low=min(low, surely), high=max(low, never))
    last = next(trial for trial in reversed(trials) if trial.rate == low)
    return Measured(interval, queries, clock.now() - began, last.reason)


@dataclass(frozen=True)
class Trial:
    """One rate that was tried.

    Attributes:
        rate: queries a second.
        queries: that came.
        p99_s: of their latency, from arrival to result; infinite where it was given up.
        low_s: lower end of its interval.
        high_s: upper end.
        reason: why it is not to be trusted.
    """

    rate: float
    queries: int
    p99_s: float
    low_s: float
    high_s: float
    reason: str = ""


def arrivals(rate: float, count: int, seed: int) -> Samples:
    """Times [N] of arrivals by chance in seconds, the first some time after 0."""
    gaps: Samples = np.random.default_rng(seed).exponential(size=count)
    return np.cumsum(gaps) / rate


def _trial(call: Call, rate: float, bound_s: float, seconds: float, clock: Clock, seed: int) -> Trial:
    count = max(_FEWEST_ARRIVALS, math.ceil(rate * seconds))
    due = arrivals(rate, count, seed)
    latencies = np.empty(count)
    begun = clock.now()
    late = 0
    for index, at_s in enumerate(due):
        clock.wait_until(begun + at_s)
        call()
        latencies[index] = clock.now() - begun - at_s
        late += bool(latencies[index] > bound_s)
        if late > 0.05 * count:  # p99 cannot come back under the bound
            return Trial(rate, index + 1, math.inf, math.inf, math.inf)
    interval = percentile_interval(latencies, 0.99)
    p99_s = float(np.quantile(latencies, 0.99))
    if interval is None:
        return Trial(
            rate, count, p99_s, float(latencies.min()), math.inf, "too few queries for an interval of p99"
        )
    return Trial(rate, count, p99_s, interval.low, interval.high)


def metric_of(scenario: ScenarioName) -> str:
    """What a scenario's value is, with its unit."""
    return {
        "SingleStream": "latency_p90_ms",
        "MultiStream": "latency_p99_ms",
        "Server": "rate_per_s",
        "Offline": "throughput_images_per_s",
    }[scenario]


def named(names: Sequence[str]) -> list[ScenarioName]:
    """Scenarios by name, `all` for every one; each once, in LoadGen's order."""
    return [name for name in SCENARIOS if name in names or "all" in names]
