"""The scenarios of MLPerf LoadGen on the models of a benchmark: arrays in, logits out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from PIL import Image

from dskd_export.benchmark.cells import Cell
from dskd_export.benchmark.loadgen import (
    MULTI_STREAM_IMAGES,
    Clock,
    Measured,
    WallClock,
    metric_of,
    offline,
    server,
    stream,
)
from dskd_export.benchmark.timing import warm_up
from dskd_export.documents.base import Interval
from dskd_export.documents.benchmark import ScenarioName, ScenarioResult
from dskd_export.errors import ProviderLacksKernel
from dskd_export.runtime.preprocess import preprocess_batch


@dataclass(frozen=True)
class Load:
    """Which scenarios are run, and how long.

    Attributes:
        names: of the scenarios.
        seconds: least time of each; of each trial in the search of Server.
        bound_ms: of Server's p99 latency.
        offline_batch: images of a call in Offline.
        max_warmup_seconds: as for a cell.
        seed: of Server's arrivals.
    """

    names: Sequence[ScenarioName]
    seconds: float
    bound_ms: float
    offline_batch: int
    max_warmup_seconds: float
    seed: int

    def batch(self, scenario: ScenarioName) -> int:
        """Images of a call."""
        return {"MultiStream": MULTI_STREAM_IMAGES, "Offline": self.offline_batch}.get(scenario, 1)


def run_scenarios(
    cells: Mapping[ScenarioName, Sequence[Cell]],
    images: Sequence[Image.Image],
    load: Load,
    before: Callable[[str], object],
    clock: Clock | None = None,
) -> Iterator[ScenarioResult]:
    """Run each scenario on its cells, which have its batch; one stream each.

    Args:
        cells: scenario -> models to run it on.
        images: decoded; taken in turn to fill a batch.
        load: how long, and the bound.
        before: told what comes next, in words.
        clock: None: the wall's.
    """
    for scenario, on in cells.items():
        for cell in on:
            before(f"{scenario}: {cell.shown}")
            yield _run(scenario, cell, images, load, clock or WallClock())


def _run(
    scenario: ScenarioName, cell: Cell, images: Sequence[Image.Image], load: Load, clock: Clock
) -> ScenarioResult:
    if cell.unavailable:
        return _result(scenario, cell, load, Measured(None, 0, 0.0, cell.unavailable), cell.threads)
    input_B = preprocess_batch(list(islice(cycle(images), cell.batch)), cell.spec)
    try:
        with cell.open() as runner:
            feeds = {cell.spec.input_name: input_B}

            def call() -> object:
                return runner.infer(feeds)

            warm_up(call, max_seconds=load.max_warmup_seconds)
            found = _measured(scenario, call, cell.batch, load, clock)
            threads = runner.facts.threads if cell.provider == "cpu" else None
    except ProviderLacksKernel as error:
        if cell.required:
            raise
        found, threads = Measured(None, 0, 0.0, error.message), cell.threads
    return _result(scenario, cell, load, found, threads)


def _measured(
    scenario: ScenarioName, call: Callable[[], object], batch: int, load: Load, clock: Clock
) -> Measured:
    if scenario == "Offline":
        return offline(call, batch, load.seconds, clock)
    if scenario == "Server":
        return server(call, load.bound_ms / 1e3, load.seconds, clock, load.seed)
    return stream(call, 0.99 if scenario == "MultiStream" else 0.9, load.seconds, clock)


def _result(
    scenario: ScenarioName, cell: Cell, load: Load, found: Measured, threads: int | None
) -> ScenarioResult:
    scale = 1e3 if metric_of(scenario).endswith("_ms") else 1.0
    value = found.value
    return ScenarioResult(
        model=cell.role,
        runner=cell.runner,
        provider=cell.provider,
        precision=cell.precision,
        threads=threads,
        scenario=scenario,
        metric=metric_of(scenario),
        value=None
        if value is None
        else Interval(value=scale * value.value, low=scale * value.low, high=scale * value.high),
        samples_per_query=1 if scenario == "Server" else cell.batch,
        batch=cell.batch,
        queries=found.queries,
        seconds=found.seconds,
        bound_ms=load.bound_ms if scenario == "Server" else None,
        stable=not found.reason,
        reason=found.reason,
    )
