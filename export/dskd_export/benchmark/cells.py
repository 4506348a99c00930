"""Time models, and what that costs in energy: a model on a runner, a provider, a precision, with a batch size."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dskd_export.benchmark.breakdown import PART_SECONDS, breakdown
from dskd_export.benchmark.store import CellStore
from dskd_export.benchmark.timing import measure_latency, with_disturbances
from dskd_export.documents.benchmark import BenchmarkRow, MemoryFacts
from dskd_export.errors import ProviderLacksKernel
from dskd_export.files.atomic import write_atomic
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.runtime.runner import Array, Runner
from dskd_export.spec import ModelSpec
from dskd_export.telemetry.memory import give_back, peak_mb, resident_mb
from dskd_export.telemetry.monitor import Monitor

Part = Literal["engine", "with_preprocessing"]
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
        open: makes the runner.
        required: a provider that cannot compute the precision is an error; else the cell stays empty.
        size_mb: of the model's file or engine; None for torch.
        threads: of the CPU that were asked for; None: all cores.
        streams: calls that are under way at once, of a runner that has `infer_many`.
        unavailable: why it cannot be timed, empty where it can.
    """

    role: Literal["teacher", "student"]
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
        """What is watched meanwhile."""
        return "cpu" if self.provider == "cpu" else "cuda:0"

    @property
    def key(self) -> str:
        """What tells it from all others, fit for a file name and for the key of its samples."""
        threads = "" if self.threads is None else f"-t{self.threads}"
        streams = "" if self.streams == 1 else f"-s{self.streams}"
        return f"{self.role}-{self.runner}-{self.provider}-{self.precision}-b{self.batch}{threads}{streams}"

    @property
    def shown(self) -> str:
        """For a progress display."""
        threads = "" if self.threads is None else f", {self.threads} threads"
        streams = "" if self.streams == 1 else f", {self.streams} streams"
        return f"{self.role} {self.runner} {self.provider} {self.precision} batch {self.batch}{threads}{streams}"


def thread_counts(threads: Sequence[int] | None, provider: str) -> Sequence[int | None]:
    """The thread counts that a model is timed with: those that are asked for on the CPU, else its own."""
    return threads if threads is not None and provider == "cpu" else (None,)


@dataclass(frozen=True)
class Effort:
    """How long a cell is timed: see `measure_latency`."""

    min_seconds: float
    min_iterations: int
    max_warmup_seconds: float


def time_cells(
    cells: Sequence[Cell],
    images: Sequence[Image.Image],
    effort: Effort,
    on_part: Callable[[Cell], object],
    before: Callable[[str], object],
    store: CellStore | None = None,
) -> tuple[list[BenchmarkRow], dict[str, NDArray[np.float64]]]:
    """Time cells, each engine alone and with preprocessing: two rows, never one.

    Args:
        cells: what to time.
        images: decoded; taken in turn to fill a batch.
        effort: how long.
        on_part: told once a row is there.
        before: told what comes next, in words.
        store: keeps what is done, so that an interrupted benchmark goes on; None: nothing is kept.

    Returns:
        The rows, and the raw samples in seconds by the key that a row names.
    """
    rows: list[BenchmarkRow] = []
    samples: dict[str, NDArray[np.float64]] = {}
    with ExitStack() as stack:
        devices = dict.fromkeys(cell.device for cell in cells if not cell.unavailable)
        monitors = {name: stack.enter_context(Monitor(name)) for name in devices}
        before("power at rest")
        for monitor in monitors.values():
            monitor.measure_idle()
        for cell in cells:
            before(cell.shown)
            kept = None if store is None else store.get(cell.key)
            if kept is None:
                kept = _timed(cell, images, effort, monitors.get(cell.device))
                if store is not None:
                    store.put(cell.key, *kept)
            rows += kept[0]
            samples |= kept[1]
            for _ in kept[0]:
                on_part(cell)
    return rows, samples


def _timed(
    cell: Cell, images: Sequence[Image.Image], effort: Effort, monitor: Monitor | None
) -> tuple[list[BenchmarkRow], dict[str, NDArray[np.float64]]]:
    """The rows of a cell, and its samples; of one that cannot be timed the reason."""
    if cell.unavailable or monitor is None:
        return [_unavailable(cell, part, cell.unavailable) for part in PARTS], {}
    try:
        measured = list(_measure(cell, images, effort, monitor))
    except ProviderLacksKernel as error:
        if cell.required:
            raise
        return [_unavailable(cell, part, error.message) for part in PARTS], {}
    return [row for row, _ in measured], {row.samples_key or "": samples_s for row, samples_s in measured}


def write_samples(path: Path, samples: Mapping[str, NDArray[np.float64]]) -> None:
    """Write raw samples as a compressed `.npz`."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **samples)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())


def _measure(
    cell: Cell, images: Sequence[Image.Image], effort: Effort, monitor: Monitor
) -> Iterator[tuple[BenchmarkRow, NDArray[np.float64]]]:
    chosen = list(islice(cycle(images), cell.batch))
    spec = cell.spec
    input_BCHW = preprocess_batch(chosen, spec)
    step_s = min(PART_SECONDS, effort.min_seconds)
    give_back()
    held_before = resident_mb()
    began = time.perf_counter()
    with cell.open() as runner:
        loaded = time.perf_counter()
        runner.infer({spec.input_name: input_BCHW})
        first = time.perf_counter()
        calls: dict[Part, Callable[[], object]] = {
            "engine": _call(cell, runner, lambda: {spec.input_name: input_BCHW}),
            "with_preprocessing": _call(cell, runner, lambda: {spec.input_name: preprocess_batch(chosen, spec)}),
        }
        for part, call in calls.items():
            with monitor.watch() as watch:
                timing = measure_latency(
                    call,
                    min_seconds=effort.min_seconds,
                    min_iterations=effort.min_iterations,
                    max_warmup_seconds=effort.max_warmup_seconds,
                )
            together = cell.batch * cell.streams
            energy, telemetry = watch.facts(timing.began_s, timing.ended_s, timing.latency.iterations * together)
            yield (
                BenchmarkRow(
                    model=cell.role,
                    runner=cell.runner,
                    provider=cell.provider,
                    precision=cell.precision,
                    batch=cell.batch,
                    threads=runner.facts.threads if cell.provider == "cpu" else None,
                    streams=cell.streams,
                    cuda_graph=runner.facts.cuda_graphs,
                    part=part,
                    latency=with_disturbances(timing.latency, telemetry.unstable),
                    throughput_images_per_s=together * 1e3 / timing.latency.mean_ms,
                    load_ms=(loaded - began) * 1e3,
                    first_inference_ms=(first - loaded) * 1e3,
                    samples_key=f"{cell.key}-{part}",
                    energy_per_image_mj=energy.per_image_mj,
                    energy_reason=energy.reason,
                    energy=energy,
                    telemetry=telemetry,
                    memory=_memory(cell, runner, held_before),
                    size_mb=cell.size_mb,
                    breakdown=[] if part == "engine" else breakdown(runner, cell.provider, spec, chosen, step_s),
                ),
                timing.samples_s,
            )


def _call(cell: Cell, runner: Runner, feeds: Callable[[], Mapping[str, Array]]) -> Callable[[], object]:
    if cell.streams == 1:
        return lambda: runner.infer(feeds())
    infer_many = runner.infer_many  # type: ignore[attr-defined]  # of an engine: no other cell has streams
    return lambda: infer_many([feeds() for _ in range(cell.streams)])


def _memory(cell: Cell, runner: Runner, before_mb: float | None) -> MemoryFacts:
    """What the open model holds, beyond what was there before it."""
    now_mb = resident_mb()
    grown, why = None, "this system does not tell"
    if cell.runner == "torch":
        why = "torch had the model open before"
    elif before_mb is not None and now_mb is not None:
        grown, why = max(0.0, now_mb - before_mb), ""
    on_device = runner.facts.device_memory_mb
    reason = ""
    if on_device is None:
        reason = "it runs on the CPU" if cell.provider == "cpu" else f"{cell.runner} does not tell"
    return MemoryFacts(
        resident_mb=grown,
        resident_reason=why,
        process_peak_mb=peak_mb(),
        device_mb=on_device,
        device_reason=reason,
    )


def _unavailable(cell: Cell, part: Part, reason: str) -> BenchmarkRow:
    return BenchmarkRow(
        model=cell.role,
        runner=cell.runner,
        provider=cell.provider,
        precision=cell.precision,
        batch=cell.batch,
        threads=cell.threads,
        streams=cell.streams,
        part=part,
        latency=None,
        throughput_images_per_s=None,
        size_mb=cell.size_mb,
        unavailable=reason,
    )
