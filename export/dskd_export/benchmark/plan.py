"""A benchmark from its plan to its results: every cell, then scenarios, then TensorRT's own tool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dskd_export.benchmark.cells import PARTS, Cell, Effort, time_cells
from dskd_export.benchmark.scenarios import Load, run_scenarios
from dskd_export.benchmark.store import CellStore
from dskd_export.benchmark.trtexec import cross_checks, find_tools
from dskd_export.documents.benchmark import BenchmarkRow, CrossCheck, ScenarioResult
from dskd_export.engine.found import FoundEngine
from dskd_export.spec import ModelSpec


@dataclass(frozen=True)
class Work:
    """What is measured.

    Attributes:
        cells_of: batches -> a cell for each model and batch.
        batches: images of a call.
        effort: how long a cell is timed.
        load: scenarios; none: no names.
        engines: that were found beside the bundle.
        cross_check: TensorRT's own tool times the engines as well.
        spec: of the bundle.
    """

    cells_of: Callable[[Sequence[int]], list[Cell]]
    batches: Sequence[int]
    effort: Effort
    load: Load
    engines: Sequence[FoundEngine]
    cross_check: bool
    spec: ModelSpec

    @property
    def most_images(self) -> int:
        """Images of the largest call."""
        return max([*self.batches, *(self.load.batch(name) for name in self.load.names)])

    @property
    def steps(self) -> int:
        """For a progress display."""
        models = len(self.cells_of(self.batches[:1]))
        return models * (len(PARTS) * len(self.batches) + len(self.load.names))


@dataclass(frozen=True)
class Done:
    """What came of it.

    Attributes:
        rows: of the cells.
        samples: seconds of every call, by the key that a row names.
        scenarios: their results.
        cross_checks: of the engines.
    """

    rows: list[BenchmarkRow]
    samples: dict[str, NDArray[np.float64]]
    scenarios: list[ScenarioResult]
    cross_checks: list[CrossCheck]

    @property
    def device(self) -> str:
        """What computed any of it: `cuda:0`, or the CPU alone."""
        return "cuda:0" if any(row.provider != "cpu" for row in self.rows if row.latency is not None) else "cpu"


def do_work(
    work: Work,
    images: Sequence[Image.Image],
    store: CellStore | None,
    on_step: Callable[[], object],
    before: Callable[[str], object],
) -> Done:
    """Measure all of it; nothing is written but by the store.

    Args:
        work: what.
        images: decoded; taken in turn to fill a batch.
        store: keeps cells that are done.
        on_step: told once a row or a scenario is there.
        before: told what comes next, in words.

    Raises:
        EnvironmentProblem: TensorRT's tool is asked for and missing; a provider or an engine does not run.
    """
    tools = find_tools(work.engines) if work.cross_check else {}
    rows, samples = time_cells(
        work.cells_of(work.batches), images, work.effort, lambda _: on_step(), before, store
    )
    scenarios = []
    wanted = {name: work.cells_of([work.load.batch(name)]) for name in work.load.names}
    for result in run_scenarios(wanted, images, work.load, before):
        scenarios.append(result)
        on_step()
    checks = list(cross_checks(work.engines, rows, work.spec, tools)) if tools else []
    return Done(rows, samples, scenarios, checks)
