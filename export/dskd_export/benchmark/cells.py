"""Time one model after the other, with the energy of each call: latency, throughput, memory and breakdown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dskd_export.benchmark.breakdown import PART_SECONDS, measure_breakdown
from dskd_export.benchmark.store import CellStore
from dskd_export.benchmark.timing import add_disturbances, measure_latency
from dskd_export.documents.benchmark import BenchmarkRow, MemoryFacts
from dskd_export.errors import ProviderLacksKernel
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.runtime.runner import Array, Runner
from dskd_export.settings import BenchmarkSettings
from dskd_export.spec import ModelSpec
from dskd_export.telemetry.monitor import Monitor
from dskd_export.telemetry.usage import give_back, peak_mb, resident_mb

Role = Literal["teacher", "student"]
Part = Literal["engine", "with_preprocessing"]
Samples = dict[str, NDArray[np.float64]]
PARTS: tuple[Part, ...] = ("engine", "with_preprocessing")


@dataclass(frozen=True)
class Cell:
    """One combination to time.

    Attributes:
        role: teacher or student.
        runner: torch, onnxruntime or tensorrt.
        provider: cpu, cuda or tensorrt.
        precision: of the model.
        batch: images of a call.
        spec: of the model's input.
        open: opens the runner.
        required: a provider without a kernel for the precision is an error; else the cell stays empty.
        size_mb: of the model's file or engine; None for torch.
        threads: CPU threads requested; None: all cores.
        streams: concurrent calls, of a runner that has `infer_many`.
        unavailable: why it cannot be timed, empty where it can.
    """

    role: Role
    runner: str
    provider: str
    precision: str
    batch: int
    spec: ModelSpec
    open: Callable[[], Runner]
    required: bool = True
    size_mb: float | None = None
    threads: int | None = None
    streams: int = 1
    unavailable: str = ""

    @property
    def device(self) -> str:
        """Device whose telemetry is sampled."""
        return "cpu" if self.provider == "cpu" else "cuda:0"

    @property
    def model(self) -> str:
        """For example `onnxruntime:cpu:int8`."""
        return f"{self.runner}:{self.provider}:{self.precision}"

    @property
    def key(self) -> str:
        """Unique name, fit for a file and for the array of its samples."""
        threads = "" if self.threads is None else f"-t{self.threads}"
        streams = "" if self.streams == 1 else f"-s{self.streams}"
        return f"{self.role}-{self.runner}-{self.provider}-{self.precision}-b{self.batch}{threads}{streams}"

    @property
    def label(self) -> str:
        """Name for a progress display."""
        threads = "" if self.threads is None else f", {self.threads} thread{'' if self.threads == 1 else 's'}"
        streams = "" if self.streams == 1 else f", {self.streams} streams"
        return f"{self.role} {self.runner} {self.provider} {self.precision} batch {self.batch}{threads}{streams}"

    @property
    def columns(self) -> dict[str, Any]:
        """Fields that its rows and its scenarios share."""
        names = ("runner", "provider", "precision", "batch")
        return {"model": self.role, **{name: getattr(self, name) for name in names}}

    def threads_of(self, runner: Runner) -> int | None:
        """Read the CPU threads of the open runner; None on another provider."""
        return runner.facts.threads if self.provider == "cpu" else None


def fill_batch(images: Sequence[Image.Image], count: int) -> list[Image.Image]:
    """Repeat images in their order until there are `count`."""
    return list(islice(cycle(images), count))


def make_feeds(cell: Cell, images: Sequence[Image.Image]) -> dict[str, Array]:
    """Preprocess one batch for a cell: input name -> array."""
    return {cell.spec.input_name: preprocess_batch(fill_batch(images, cell.batch), cell.spec)}


def time_cells(
    cells: Sequence[Cell],
    images: Sequence[Image.Image],
    settings: BenchmarkSettings,
    on_step: Callable[[], object],
    on_status: Callable[[str], object],
    store: CellStore | None = None,
) -> tuple[list[BenchmarkRow], Samples]:
    """Time cells, each engine alone and with preprocessing: two rows each.

    Args:
        cells: what to time.
        images: decoded; repeated to fill a batch.
        settings: least time and calls of a measurement, longest warm-up.
        on_step: called after every row.
        on_status: called with the name of each cell before it is timed.
        store: keeps finished cells, so that an interrupted benchmark resumes; None: nothing is kept.

    Returns:
        The rows, and the raw samples in seconds by `samples_key` of a row.
    """
    rows: list[BenchmarkRow] = []
    samples: Samples = {}
    with ExitStack() as stack:
        devices = dict.fromkeys(cell.device for cell in cells if not cell.unavailable)
        monitors = {name: stack.enter_context(Monitor(name)) for name in devices}
        on_status("power at rest")
        for monitor in monitors.values():
            monitor.measure_idle()
        for cell in cells:
            on_status(cell.label)
            finished = None if store is None else store.get(cell.key)
            if finished is None:
                finished = _time_cell(cell, images, settings, monitors.get(cell.device))
                if store is not None:
                    store.put(cell.key, *finished)
            rows += finished[0]
            samples |= finished[1]
            for _ in finished[0]:
                on_step()
    return rows, samples


def _time_cell(
    cell: Cell, images: Sequence[Image.Image], settings: BenchmarkSettings, monitor: Monitor | None
) -> tuple[list[BenchmarkRow], Samples]:
    """The rows of a cell, and its samples; rows with the reason where it cannot be timed."""
    reason = cell.unavailable
    if monitor is not None and not reason:
        try:
            measured = list(_measure(cell, images, settings, monitor))
        except ProviderLacksKernel as error:
            if cell.required:
                raise
            reason = error.message
        else:
            return [row for row, _ in measured], {row.samples_key or "": samples_s for row, samples_s in measured}
    empty: dict[str, Any] = {"latency": None, "throughput_images_per_s": None, "unavailable": reason}
    shared = cell.columns | {"threads": cell.threads, "streams": cell.streams, "size_mb": cell.size_mb}
    return [BenchmarkRow(**shared, part=part, **empty) for part in PARTS], {}


def _measure(
    cell: Cell, images: Sequence[Image.Image], settings: BenchmarkSettings, monitor: Monitor
) -> Iterator[tuple[BenchmarkRow, NDArray[np.float64]]]:
    chosen = fill_batch(images, cell.batch)
    spec = cell.spec
    feeds = {spec.input_name: preprocess_batch(chosen, spec)}
    step_s = min(PART_SECONDS, settings.min_seconds)
    give_back()
    before_mb = resident_mb()
    began = time.perf_counter()
    with cell.open() as runner:
        loaded = time.perf_counter()
        runner.infer(feeds)
        first = time.perf_counter()
        calls: dict[Part, Callable[[], object]] = {
            "engine": _bind_call(cell, runner, lambda: feeds),
            "with_preprocessing": _bind_call(
                cell, runner, lambda: {spec.input_name: preprocess_batch(chosen, spec)}
            ),
        }
        for part, call in calls.items():
            with monitor.watch() as watch:
                timing = measure_latency(
                    call,
                    min_seconds=settings.min_seconds,
                    min_iterations=settings.min_iterations,
                    max_warmup_seconds=settings.max_warmup_seconds,
                )
            images_per_call = cell.batch * cell.streams
            energy, telemetry = watch.facts(
                timing.began_s, timing.ended_s, timing.latency.iterations * images_per_call
            )
            yield (
                BenchmarkRow(
                    **cell.columns,
                    threads=cell.threads_of(runner),
                    streams=cell.streams,
                    cuda_graph=runner.facts.cuda_graphs,
                    part=part,
                    latency=add_disturbances(timing.latency, telemetry.unstable),
                    throughput_images_per_s=images_per_call * 1e3 / timing.latency.mean_ms,
                    load_ms=(loaded - began) * 1e3,
                    first_inference_ms=(first - loaded) * 1e3,
                    samples_key=f"{cell.key}-{part}",
                    energy_per_image_mj=energy.per_image_mj,
                    energy_reason=energy.reason,
                    energy=energy,
                    telemetry=telemetry,
                    memory=_memory(cell, runner, before_mb),
                    size_mb=cell.size_mb,
                    breakdown=[]
                    if part == "engine"
                    else measure_breakdown(runner, cell.provider, spec, chosen, step_s),
                ),
                timing.samples_s,
            )


def _bind_call(cell: Cell, runner: Runner, feeds: Callable[[], Mapping[str, Array]]) -> Callable[[], object]:
    if cell.streams == 1:
        return lambda: runner.infer(feeds())
    infer_many = runner.infer_many  # type: ignore[attr-defined]  # of an engine: no other cell has streams
    return lambda: infer_many([feeds() for _ in range(cell.streams)])


def _memory(cell: Cell, runner: Runner, before_mb: float | None) -> MemoryFacts:
    """Memory of the open model, beyond that before it was opened."""
    now_mb = resident_mb()
    grown, why = None, "this system does not report it"
    if cell.runner == "torch":
        why = "torch had the model open before"
    elif before_mb is not None and now_mb is not None:
        grown, why = max(0.0, now_mb - before_mb), ""
    on_device = runner.facts.device_memory_mb
    reason = ""
    if on_device is None:
        reason = "it runs on the CPU" if cell.provider == "cpu" else f"{cell.runner} does not report it"
    return MemoryFacts(
        resident_mb=grown,
        resident_reason=why,
        process_peak_mb=peak_mb(),
        device_mb=on_device,
        device_reason=reason,
    )
