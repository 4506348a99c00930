"""Time teacher and student on the runners that are here, and what that costs in energy."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from dskd_compress.config import BenchmarkSection, Recipe
from dskd_compress.console import Output
from dskd_compress.data import DataSets, iter_images
from dskd_compress.provenance import Stopwatch
from dskd_compress.run_folder import BENCHMARK, RunFolder, recipe_sha256
from dskd_compress.stages.export import TEACHER_ONNX, teacher_spec_of
from dskd_compress.stages.setup import load_teacher, open_checked_data
from dskd_compress.torch_runner import TorchRunner
from dskd_compress.weights import load_trained
from dskd_export.bundle import open_bundle
from dskd_export.documents import BenchmarkDocument, BenchmarkRow
from dskd_export.errors import DataError, EnvironmentProblem
from dskd_export.files import write_atomic
from dskd_export.onnx_from_torch import deployed
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner, available_providers
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.runtime.runner import Runner
from dskd_export.spec import ModelSpec
from dskd_export.telemetry.monitor import Monitor
from dskd_export.timing import measure_latency, with_disturbances

Role = Literal["teacher", "student"]

_DEVICE = {"cpu": "cpu", "cuda": "cuda:0"}


@dataclass(frozen=True)
class Subject:
    """A model in both forms that can be timed."""

    role: Role
    model: nn.Module
    onnx: Any
    spec: ModelSpec


@dataclass(frozen=True)
class Cell:
    """One combination to time."""

    subject: Subject
    runner: Literal["torch", "onnxruntime"]
    provider: str
    batch: int


def run_benchmark(recipe: Recipe, folder: RunFolder, output: Output) -> BenchmarkDocument:
    """Time the models of a run; writes `benchmark.json` and `benchmark.samples.npz`.

    Raises:
        DataError: there is no bundle yet, or no exported teacher although it is to be timed.
        EnvironmentProblem: a provider that the recipe names is not here.
    """
    watch = Stopwatch()
    section = recipe.benchmark
    folder.require("bundle/manifest.json", "export")
    bundle = open_bundle(folder.bundle)
    sets = open_checked_data(recipe)
    subjects = list(_subjects(recipe, folder, sets, bundle.model("fp32"), bundle.spec))
    images = [image for image, _, _ in iter_images(sets.val, max(section.batches), recipe.seed)]
    cells = [
        Cell(subject, runner, provider, batch)
        for subject in subjects
        for runner in section.runners
        for provider in _providers(section, runner)
        for batch in section.batches
    ]
    rows: list[BenchmarkRow] = []
    samples: dict[str, NDArray[np.float64]] = {}
    with ExitStack() as stack, output.progress("Timing", 2 * len(cells), unit="cell") as progress:
        monitors = {
            provider: stack.enter_context(Monitor(_DEVICE[provider]))
            for provider in dict.fromkeys(cell.provider for cell in cells)
        }
        progress.update(description="power at rest")
        for monitor in monitors.values():
            monitor.measure_idle()
        for cell in cells:
            progress.update(description=f"{cell.subject.role} {cell.runner} {cell.provider} batch {cell.batch}")
            for row, samples_s in _measure(cell, section, images, monitors[cell.provider]):
                assert row.samples_key is not None
                rows.append(row)
                samples[row.samples_key] = samples_s
                progress.advance(1)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **samples)  # type: ignore[arg-type]
    write_atomic(folder / "benchmark.samples.npz", buffer.getvalue())
    device = _DEVICE["cuda" if any(row.provider == "cuda" for row in rows) else "cpu"]
    provenance = watch.provenance(seed=recipe.seed, device=device, recipe_sha256=recipe_sha256(recipe))
    document = BenchmarkDocument(rows=rows, bundle_sha256=bundle.sha256, provenance=provenance)
    folder.write_document("benchmark.json", document)
    folder.record_stage(BENCHMARK, recipe, provenance)
    return document


def _subjects(
    recipe: Recipe, folder: RunFolder, sets: DataSets, student_onnx: Any, spec: ModelSpec
) -> Iterator[Subject]:
    student, info = load_trained(folder.require("student.safetensors", "distill"))
    if recipe.benchmark.teacher:
        onnx = folder / TEACHER_ONNX if "onnxruntime" in recipe.benchmark.runners else None
        if onnx is not None and not onnx.is_file():
            raise DataError(
                f"{onnx} is missing, and benchmark.teacher asks to time it.",
                f"Set export.teacher and run: dskd-compress export {folder.path}. Or set benchmark.teacher=false.",
            )
        teacher = load_teacher(recipe, folder, sets)
        teacher_spec = teacher_spec_of(recipe, sets, teacher, student, info)
        yield Subject("teacher", teacher.model, onnx, teacher_spec)
    yield Subject("student", deployed(student, spec), student_onnx, spec)


def _providers(section: BenchmarkSection, runner: str) -> list[str]:
    """The providers to time; `auto` is the CPU and, where it is present, CUDA."""
    there = ["cpu"]
    if runner == "torch":
        there += ["cuda"] if torch.cuda.is_available() else []
    else:
        there = list(available_providers())
    asked: list[str] = []
    for provider in section.providers:
        if provider == "auto":
            asked += [name for name in ("cpu", "cuda") if name in there]
        elif provider in there:
            asked.append(provider)
        else:
            raise EnvironmentProblem(
                f"benchmark.providers names {provider}, which {runner} lacks here (it has {', '.join(there)}).",
                "Change benchmark.providers, or see: dskd-compress doctor",
            )
    return list(dict.fromkeys(asked))


def _open(cell: Cell, threads: int | None) -> Runner:
    if cell.runner == "torch":
        return TorchRunner(cell.subject.model, device=cell.provider, threads=threads)
    return OnnxRuntimeRunner(cell.subject.onnx, provider=cell.provider, threads=threads)


def _measure(
    cell: Cell, section: BenchmarkSection, images: list[Image.Image], monitor: Monitor
) -> Iterator[tuple[BenchmarkRow, NDArray[np.float64]]]:
    """Engine alone and with preprocessing: two rows, never one."""
    chosen = list(islice(cycle(images), cell.batch))
    spec = cell.subject.spec
    input_BCHW = preprocess_batch(chosen, spec)
    began = time.perf_counter()
    with _open(cell, section.threads) as runner:
        loaded = time.perf_counter()
        runner.infer({spec.input_name: input_BCHW})
        first = time.perf_counter()
        calls: dict[Literal["engine", "with_preprocessing"], Callable[[], object]] = {
            "engine": lambda: runner.infer({spec.input_name: input_BCHW}),
            "with_preprocessing": lambda: runner.infer({spec.input_name: preprocess_batch(chosen, spec)}),
        }
        for part, call in calls.items():
            with monitor.watch() as watch:
                timing = measure_latency(
                    call,
                    min_seconds=section.min_seconds,
                    min_iterations=section.min_iterations,
                    max_warmup_seconds=section.max_warmup_seconds,
                )
            calls_made = timing.latency.iterations
            energy, telemetry = watch.facts(timing.began_s, timing.ended_s, calls_made * cell.batch)
            key = f"{cell.subject.role}-{cell.runner}-{cell.provider}-fp32-b{cell.batch}-{part}"
            yield (
                BenchmarkRow(
                    model=cell.subject.role,
                    runner=cell.runner,
                    provider=cell.provider,
                    precision="fp32",
                    batch=cell.batch,
                    threads=int(runner.facts["threads"]) if cell.provider == "cpu" else None,
                    part=part,
                    latency=with_disturbances(timing.latency, telemetry.unstable),
                    throughput_images_per_s=cell.batch * 1e3 / timing.latency.mean_ms,
                    load_ms=(loaded - began) * 1e3,
                    first_inference_ms=(first - loaded) * 1e3,
                    samples_key=key,
                    energy_per_image_mj=energy.per_image_mj,
                    energy_reason=energy.reason,
                    energy=energy,
                    telemetry=telemetry,
                ),
                timing.samples_s,
            )
