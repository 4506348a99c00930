"""A/B test of two models: interleaved calls, and an interval for the ratio of their medians.

Timed one after the other, two models are measured under two conditions: clocks, caches and other processes change
in between. In short blocks of calls in a random order, both see the same. A pair of blocks gives one log ratio of
medians. Neighbouring pairs are correlated, so the interval of their mean, by Student's t, counts how many of them
are independent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dskd_export.benchmark.cells import Cell, make_feeds
from dskd_export.benchmark.plan import BenchmarkPlan
from dskd_export.benchmark.run import draw_images
from dskd_export.benchmark.statistics import mean_interval
from dskd_export.benchmark.timing import time_calls
from dskd_export.documents.base import Interval, Provenance
from dskd_export.documents.benchmark import AbDocument, Comparison, Faster
from dskd_export.errors import ProviderLacksKernel, UsageError
from dskd_export.telemetry.monitor import Monitor

Call = Callable[[], object]

INDIFFERENT = 0.01
"""Models whose times differ by a smaller fraction are not distinguished: no one ships another for that."""

_BLOCKS_PER_SECONDS = 60
_LEAST_BLOCK_CALLS = 3
_FEWEST_PAIRS = 20


def compare_plans(
    first: BenchmarkPlan,
    second: BenchmarkPlan,
    *,
    names: tuple[str, str],
    seed: int,
    provenance: Callable[..., Provenance],
    on_step: Callable[[], object],
    on_status: Callable[[str], object],
) -> AbDocument:
    """A/B-test every cell that two plans have in common; a pair without a kernel here is left out.

    Args:
        first: models to compare with.
        second: models that are judged.
        names: of both, for the document.
        seed: of the order of blocks and of the noise image.
        provenance: called with the device that computed, when all is measured.
        on_step: called after every pair.
        on_status: called with the name of each pair before it is timed.

    Raises:
        ProviderLacksKernel: a precision that was requested by name cannot be computed here.
        UsageError: they have no model in common that can run here.
    """
    images, _ = draw_images(None, 1, seed)
    comparisons, devices = [], set()
    for one, other in _pair_cells(first, second):
        on_status(one.label)
        try:
            comparisons.append(_compare(one, other, images, first.settings.min_seconds, seed))
            devices.add(one.device)
        except ProviderLacksKernel:
            if one.required:
                raise
        on_step()
    if not comparisons:
        raise UsageError(
            f"{names[0]} and {names[1]} have no model in common that can run here.",
            "Name a precision and a provider that both have: --precision, --provider",
        )
    return AbDocument(
        first=names[0],
        second=names[1],
        first_sha256=first.bundle.sha256,
        second_sha256=second.bundle.sha256,
        comparisons=comparisons,
        provenance=provenance(device=max(devices)),  # cuda:0 where one ran there
    )


def count_pairs(first: BenchmarkPlan, second: BenchmarkPlan) -> int:
    """Count the cells that two plans have in common."""
    return len(_pair_cells(first, second))


def _pair_cells(first: BenchmarkPlan, second: BenchmarkPlan) -> list[tuple[Cell, Cell]]:
    """Cells that both plans have: the same runner, provider, precision, batch, threads and streams."""
    cells = [
        {cell.key: cell for cell in plan.cells(plan.settings.batches) if not cell.unavailable}
        for plan in (first, second)
    ]
    return [(cell, cells[1][key]) for key, cell in cells[0].items() if key in cells[1]]


def _compare(first: Cell, second: Cell, images: Sequence[Image.Image], seconds: float, seed: int) -> Comparison:
    with first.open() as one, second.open() as other, Monitor(first.device) as monitor:
        feeds = make_feeds(first, images), make_feeds(second, images)
        one.infer(feeds[0])
        other.infer(feeds[1])
        with monitor.watch() as watch:
            log_ratios = interleave(
                lambda: one.infer(feeds[0]),
                lambda: other.infer(feeds[1]),
                min_seconds=2 * seconds,
                block_seconds=seconds / _BLOCKS_PER_SECONDS,
                seed=seed,
            )
        _, telemetry = watch.facts(watch.began_s, watch.ended_s, 1)
    ratio = estimate_ratio(log_ratios)
    return Comparison(
        first=first.model,
        second=second.model,
        batch=first.batch,
        part="engine",
        pairs=len(log_ratios),
        ratio=ratio,
        verdict=judge_ratio(ratio),
        stable=not telemetry.unstable,
        reason="; ".join(telemetry.unstable),
    )


def interleave(
    first: Call,
    second: Call,
    *,
    min_seconds: float,
    block_seconds: float,
    seed: int,
    clock: Callable[[], float] = time.perf_counter,
) -> NDArray[np.float64]:
    """Time both in pairs of blocks, in a random order within each pair.

    Args:
        first: blocks until its result is ready.
        second: the same of the other model.
        min_seconds: least time over all.
        block_seconds: of a block, which has at least three calls.
        seed: of the order.
        clock: seconds, monotonic.

    Returns:
        Log ratios of the medians of each pair of blocks, second over first [P], in the order of measuring.
    """
    rng = np.random.default_rng(seed)
    calls = (first, second)
    counts = [_count_block_calls(call, block_seconds, clock) for call in calls]
    ratios: list[float] = []
    began = clock()
    while clock() - began < min_seconds or len(ratios) < _FEWEST_PAIRS:
        medians = [0.0, 0.0]
        for which in rng.permutation(2):
            medians[which] = _time_block(calls[which], counts[which], clock)
        ratios.append(math.log(medians[1] / medians[0]))
    return np.array(ratios)


def estimate_ratio(log_ratios: NDArray[np.float64]) -> Interval:
    """Estimate the time of the second over that of the first, with its 95 % interval."""
    found = mean_interval(log_ratios)
    if found is None:  # so correlated that hardly anything is known
        values = np.sort(log_ratios)
        found = Interval(value=float(values.mean()), low=float(values[0]), high=float(values[-1]))
    return Interval(value=math.exp(found.value), low=math.exp(found.low), high=math.exp(found.high))


def judge_ratio(ratio: Interval) -> Faster:
    """Judge the second model against the first: by the whole interval, and by more than one percent."""
    if ratio.low > 1 + INDIFFERENT:
        return "slower"
    if ratio.high < 1 / (1 + INDIFFERENT):
        return "faster"
    return "not distinguishable"


def _count_block_calls(call: Call, seconds: float, clock: Callable[[], float]) -> int:
    """Calls that fill a block, by the median of a few calls."""
    samples_s = time_calls(call, clock, count=_LEAST_BLOCK_CALLS + 2)
    return max(_LEAST_BLOCK_CALLS, round(seconds / max(float(np.median(samples_s)), 1e-9)))


def _time_block(call: Call, count: int, clock: Callable[[], float]) -> float:
    """Median time of a block, in seconds."""
    call()  # fills the caches, which hold the other model
    return float(np.median(time_calls(call, clock, count=count)))
