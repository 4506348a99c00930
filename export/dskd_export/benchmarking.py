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

from dskd_export.benchmark_document import BenchmarkRow
from dskd_export.errors import ProviderLacksKernel
from dskd_export.files import write_atomic
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.runtime.runner import Runner
from dskd_export.spec import ModelSpec
from dskd_export.telemetry.monitor import Monitor
from dskd_export.timing import measure_latency, with_disturbances

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
    unavailable: str = ""

    @property
    def device(self) -> str:
        """What is watched meanwhile."""
        return "cpu" if self.provider == "cpu" else "cuda:0"

    @property
    def shown(self) -> str:
        """For a progress display."""
        return f"{self.role} {self.runner} {self.provider} {self.precision} batch {self.batch}"


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
) -> tuple[list[BenchmarkRow], dict[str, NDArray[np.float64]]]:
    """Time cells, each engine alone and with preprocessing: two rows, never one.

    Args:
        cells: what to time.
        images: decoded; taken in turn to fill a batch.
        effort: how long.
        on_part: told once a row is there.
        before: told what comes next, in words.

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
            if cell.unavailable:
                for part in PARTS:
                    rows.append(_unavailable(cell, part, cell.unavailable))
                    on_part(cell)
                continue
            try:
                for row, samples_s in _measure(cell, images, effort, monitors[cell.device]):
                    assert row.samples_key is not None
                    rows.append(row)
                    samples[row.samples_key] = samples_s
                    on_part(cell)
            except ProviderLacksKernel as error:
                if cell.required:
                    raise
                for part in PARTS:
                    rows.append(_unavailable(cell, part, error.message))
                    on_part(cell)
    return rows, samples


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
    began = time.perf_counter()
    with cell.open() as runner:
        loaded = time.perf_counter()
        runner.infer({spec.input_name: input_BCHW})
        first = time.perf_counter()
        calls: dict[Part, Callable[[], object]] = {
            "engine": lambda: runner.infer({spec.input_name: input_BCHW}),
            "with_preprocessing": lambda: runner.infer({spec.input_name: preprocess_batch(chosen, spec)}),
        }
        for part, call in calls.items():
            with monitor.watch() as watch:
                timing = measure_latency(
                    call,
                    min_seconds=effort.min_seconds,
                    min_iterations=effort.min_iterations,
                    max_warmup_seconds=effort.max_warmup_seconds,
                )
            computed = timing.latency.iterations * cell.batch
            energy, telemetry = watch.facts(timing.began_s, timing.ended_s, computed)
            yield (
                BenchmarkRow(
                    model=cell.role,
                    runner=cell.runner,
                    provider=cell.provider,
                    precision=cell.precision,
                    batch=cell.batch,
                    threads=int(runner.facts["threads"]) if cell.provider == "cpu" else None,
                    streams=int(runner.facts.get("streams", 1)),
                    cuda_graph=runner.facts.get("cuda_graphs"),
                    part=part,
                    latency=with_disturbances(timing.latency, telemetry.unstable),
                    throughput_images_per_s=cell.batch * 1e3 / timing.latency.mean_ms,
                    load_ms=(loaded - began) * 1e3,
                    first_inference_ms=(first - loaded) * 1e3,
                    samples_key=f"{cell.role}-{cell.runner}-{cell.provider}-{cell.precision}-b{cell.batch}-{part}",
                    energy_per_image_mj=energy.per_image_mj,
                    energy_reason=energy.reason,
                    energy=energy,
                    telemetry=telemetry,
                    size_mb=cell.size_mb,
                ),
                timing.samples_s,
            )


def _unavailable(cell: Cell, part: Part, reason: str) -> BenchmarkRow:
    return BenchmarkRow(
        model=cell.role,
        runner=cell.runner,
        provider=cell.provider,
        precision=cell.precision,
        batch=cell.batch,
        threads=None,
        part=part,
        latency=None,
        throughput_images_per_s=None,
        size_mb=cell.size_mb,
        unavailable=reason,
    )
