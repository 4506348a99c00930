"""The four scenarios of MLPerf LoadGen: the load decides which metric is measured.

    SingleStream   the next query follows the end of the last one              p90 of the latency
    MultiStream    the same with eight images a query                          p99 of the latency
    Server         Poisson arrivals, whether or not a query waits              largest rate whose p99 keeps a bound
    Offline        all images at once                                          images a second

Terms, percentiles and the eight images are LoadGen's (mlcommons/inference, loadgen/mlperf.conf). LoadGen runs
for ten minutes and more; the time here is given. For results to submit, use LoadGen itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dskd_export.benchmark.cells import Cell, make_feeds
from dskd_export.benchmark.statistics import list_instabilities, percentile_interval
from dskd_export.benchmark.timing import time_calls, warm_up
from dskd_export.documents.base import Interval
from dskd_export.documents.benchmark import ScenarioName, ScenarioResult
from dskd_export.errors import ProviderLacksKernel
from dskd_export.settings import BenchmarkSettings

Call = Callable[[], object]
Samples = NDArray[np.float64]

METRICS: dict[ScenarioName, str] = {
    "SingleStream": "latency_p90_ms",
    "MultiStream": "latency_p99_ms",
    "Server": "rate_per_s",
    "Offline": "throughput_images_per_s",
}
MULTI_STREAM_IMAGES = 8
_FEWEST_QUERIES = 64
# LoadGen takes 270,336 queries of a Server run, so that p99 is known to a twentieth of a percent. With as few as
# here, the interval shows how well it is known.
_FEWEST_ARRIVALS = 1000
_RATE_TOLERANCE = 0.005
_SPIN_S = 0.002


def select_scenarios(names: Sequence[str]) -> list[ScenarioName]:
    """Scenarios by name, `all` for every one; each once, in LoadGen's order."""
    return [name for name in METRICS if name in names or "all" in names]


def scenario_batch(scenario: ScenarioName, settings: BenchmarkSettings) -> int:
    """Images of a call."""
    return {"MultiStream": MULTI_STREAM_IMAGES, "Offline": max(settings.batches)}.get(scenario, 1)


def run_scenarios(
    cells: Mapping[ScenarioName, Sequence[Cell]],
    images: Sequence[Image.Image],
    settings: BenchmarkSettings,
    seed: int,
    on_status: Callable[[str], object],
    clock: Clock | None = None,
) -> Iterator[ScenarioResult]:
    """Run each scenario on its cells, which have its batch; one stream each.

    Args:
        cells: scenario -> models to run it on.
        images: decoded; repeated to fill a batch.
        settings: least time of a scenario, bound of Server's p99 latency, longest warm-up.
        seed: of Server's arrivals.
        on_status: called with each scenario and model before it runs.
        clock: None: the wall clock.
    """
    for scenario, models in cells.items():
        for cell in models:
            on_status(f"{scenario}: {cell.label}")
            measured, threads = _run(scenario, cell, images, settings, seed, clock or WallClock())
            unit = 1e3 if METRICS[scenario].endswith("_ms") else 1.0
            found = measured.value
            yield ScenarioResult(
                **cell.columns,
                threads=threads,
                scenario=scenario,
                metric=METRICS[scenario],
                value=found and Interval(value=unit * found.value, low=unit * found.low, high=unit * found.high),
                samples_per_query=1 if scenario == "Server" else cell.batch,
                queries=measured.queries,
                seconds=measured.seconds,
                bound_ms=settings.server_bound_ms if scenario == "Server" else None,
                stable=not measured.reason,
                reason=measured.reason,
            )


def _run(
    scenario: ScenarioName,
    cell: Cell,
    images: Sequence[Image.Image],
    settings: BenchmarkSettings,
    seed: int,
    clock: Clock,
) -> tuple[Measured, int | None]:
    """The result of a scenario on a model, and its CPU threads."""
    if cell.unavailable:
        return Measured(None, 0, 0.0, cell.unavailable), cell.threads
    feeds, seconds = make_feeds(cell, images), settings.scenario_seconds
    try:
        with cell.open() as runner:

            def call() -> object:
                return runner.infer(feeds)

            warm_up(call, max_seconds=settings.max_warmup_seconds)
            if scenario == "Offline":
                measured = measure_offline(call, cell.batch, seconds, clock)
            elif scenario == "Server":
                measured = measure_server(call, settings.server_bound_ms / 1e3, seconds, clock, seed)
            else:
                measured = measure_stream(call, 0.99 if scenario == "MultiStream" else 0.9, seconds, clock)
            return measured, cell.threads_of(runner)
    except ProviderLacksKernel as error:
        if cell.required:
            raise
        return Measured(None, 0, 0.0, error.message), cell.threads


class Clock(Protocol):
    """Time, and waiting for it."""

    def now(self) -> float:
        """Seconds, monotonic."""

    def wait_until(self, at_s: float) -> None:
        """Return at this time, or at once where it has passed."""


class WallClock:
    """The wall clock. Sleeping returns late, so the last two milliseconds are spent spinning."""

    now = staticmethod(time.perf_counter)

    def wait_until(self, at_s: float) -> None:
        """Sleep, then spin."""
        left = at_s - time.perf_counter()
        if left > _SPIN_S:
            time.sleep(left - _SPIN_S)
        while time.perf_counter() < at_s:
            pass


@dataclass(frozen=True)
class Measured:
    """Result of a scenario.

    Attributes:
        value: in the unit of the scenario: seconds, queries a second, or images a second; None: see the reason.
        queries: made, trials of a search included.
        seconds: duration.
        reason: why there is no value, or why it is unstable; else empty.
    """

    value: Interval | None
    queries: int
    seconds: float
    reason: str = ""


def measure_stream(call: Call, share: float, seconds: float, clock: Clock) -> Measured:
    """Measure SingleStream and MultiStream: a percentile of the latency of consecutive queries.

    Args:
        call: one query; blocks until its result is ready.
        share: the percentile, in (0, 1).
        seconds: least time.
        clock: of the measurement.
    """
    began = clock.now()
    times = np.array(time_calls(call, clock.now, count=_FEWEST_QUERIES, seconds=seconds))
    interval = percentile_interval(times, share)
    reasons = list_instabilities(times)
    if interval is None:
        value = float(np.quantile(times, share))
        interval = Interval(value=value, low=float(times.min()), high=float(times.max()))
        reasons.append(f"{len(times)} queries are too few for an interval of p{100 * share:g}")
    return Measured(interval, len(times), clock.now() - began, "; ".join(reasons))


def measure_offline(call: Call, images: int, seconds: float, clock: Clock) -> Measured:
    """Measure Offline: images a second, with a 95 % interval over ten parts of the time.

    Args:
        call: one batch; blocks until its result is ready.
        images: of it.
        seconds: least time.
        clock: of the measurement.
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
    return Measured(interval, len(took), ends[-1] - ends[0], "; ".join(list_instabilities(took)))


def measure_server(call: Call, bound_s: float, seconds: float, clock: Clock, seed: int) -> Measured:
    """Measure Server: the largest arrival rate whose p99 latency stays under a bound, by bisection.

    A query waits while another is served. The arrivals of all trials are the same random draws, scaled to the
    rate, so that a higher rate is never luckier. The interval lies between the largest rate that keeps the
    bound with 95 % confidence and the smallest that surely does not.

    Args:
        call: one query of one image; blocks until its result is ready.
        bound_s: of the p99 latency, from arrival to result.
        seconds: least time of each trial of the search.
        clock: of the measurement.
        seed: of the arrivals.
    """
    began = clock.now()
    alone = time_calls(call, clock.now, count=_FEWEST_QUERIES)
    service_s = float(np.median(alone))
    if float(np.quantile(alone, 0.99)) > bound_s:
        reason = f"a single query takes {1e3 * float(np.quantile(alone, 0.99)):.3g} ms at p99"
        return Measured(None, len(alone), clock.now() - began, f"{reason}, the bound is {1e3 * bound_s:g} ms")
    trials: list[Trial] = []
    low, high = 0.0, 1 / service_s  # nothing serves more than it can
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
        return Measured(None, queries, clock.now() - began, "even queries that hardly ever overlap miss the bound")
    surely = max((trial.rate for trial in trials if trial.high_s <= bound_s), default=0.0)
    never = min((trial.rate for trial in trials if trial.low_s > bound_s), default=1 / service_s)
    interval = Interval(value=low, low=min(low, surely), high=max(low, never))
    last = next(trial for trial in reversed(trials) if trial.rate == low)
    return Measured(interval, queries, clock.now() - began, last.reason)


@dataclass(frozen=True)
class Trial:
    """One rate of the search.

    Attributes:
        rate: queries a second.
        queries: that arrived.
        p99_s: of their latency, from arrival to result; infinite where the trial was cut short.
        low_s: lower end of its interval.
        high_s: upper end.
        reason: why it is unstable.
    """

    rate: float
    queries: int
    p99_s: float
    low_s: float
    high_s: float
    reason: str = ""


def draw_arrivals(rate: float, count: int, seed: int) -> Samples:
    """Draw the times [N] of Poisson arrivals in seconds, the first some time after 0."""
    gaps: Samples = np.random.default_rng(seed).exponential(size=count)
    return np.cumsum(gaps) / rate


def _trial(call: Call, rate: float, bound_s: float, seconds: float, clock: Clock, seed: int) -> Trial:
    count = max(_FEWEST_ARRIVALS, math.ceil(rate * seconds))
    due = draw_arrivals(rate, count, seed)
    latencies = np.empty(count)
    begun, late = clock.now(), 0
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
        least_s, reason = float(latencies.min()), "too few queries for an interval of p99"
        return Trial(rate, count, p99_s, least_s, math.inf, reason)
    return Trial(rate, count, p99_s, interval.low, interval.high)
