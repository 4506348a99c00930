"""Time teacher and student on the runners that are here, and what that costs in energy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from dskd_compress.config import BenchmarkSection, Recipe
from dskd_compress.console import Output
from dskd_compress.data import DataSets, iter_images
from dskd_compress.run_folder import BENCHMARK, RunFolder, recipe_sha256, writes_run
from dskd_compress.stages.benchmark_settings import cell_store, judged, load_of
from dskd_compress.stages.export import TEACHER_ONNX, teacher_spec_of
from dskd_compress.stages.setup import open_checked_data
from dskd_compress.teachers.load import load_teacher
from dskd_compress.torch_runner import TorchRunner
from dskd_compress.weights import load_trained
from dskd_export.benchmark.cells import Cell, Effort, thread_counts, write_samples
from dskd_export.benchmark.engine_cells import engine_cells
from dskd_export.benchmark.plan import Work, do_work
from dskd_export.bundle import Bundle, open_bundle
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.engine.found import FoundEngine
from dskd_export.errors import DataError, EnvironmentProblem
from dskd_export.onnx_from_torch import deployed
from dskd_export.provenance import Stopwatch
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner
from dskd_export.runtime.providers import TENSORRT
from dskd_export.runtime.runner import Runner
from dskd_export.spec import ModelSpec
from dskd_export.validation.candidates import FULL, engines_for, in_order, named_providers, profile_shapes

Role = Literal["teacher", "student"]


@dataclass(frozen=True)
class Subject:
    """A model in both forms that can be timed.

    Attributes:
        role: teacher or student.
        model: in torch.
        onnx: precision -> its ONNX file, or the content of it.
        spec: of its input.
    """

    role: Role
    model: nn.Module
    onnx: Mapping[str, bytes | Path]
    spec: ModelSpec


@writes_run
def run_benchmark(recipe: Recipe, folder: RunFolder, output: Output, *, fresh: bool = False) -> BenchmarkDocument:
    """Time the models of a run; writes `benchmark.json` and `benchmark.samples.npz`.

    Cells that an interrupted benchmark has done are kept and taken over, unless `fresh` is set. The caller
    judges the budget.

    Raises:
        DataError: there is no bundle yet, or no exported teacher although it is to be timed.
        EnvironmentProblem: a provider that the recipe names is not here.
    """
    watch = Stopwatch()
    section = recipe.benchmark
    folder.require("bundle/manifest.json", "export")
    inputs = folder.inputs(BENCHMARK, recipe)
    bundle = open_bundle(folder.bundle)
    sets = open_checked_data(recipe, output)
    subjects = list(_subjects(recipe, folder, sets, bundle))
    work = _work(recipe, bundle, subjects, folder)
    drawn = iter_images(sets.val, work.most_images, recipe.seed, max_unreadable=sets.max_unreadable)
    images = [image for image, _, _ in drawn]
    store = cell_store(folder.path, bundle.sha256, section, fresh)
    with output.progress("Timing", work.steps, unit="cell") as progress:
        done = do_work(
            work,
            images,
            store,
            on_step=lambda: progress.advance(1),
            before=lambda text: progress.update(description=text),
        )
    write_samples(folder / "benchmark.samples.npz", done.samples)
    provenance = watch.provenance(seed=recipe.seed, device=done.device, recipe_sha256=recipe_sha256(recipe))
    document = BenchmarkDocument(
        rows=done.rows,
        scenarios=done.scenarios,
        cross_checks=done.cross_checks,
        judgements=judged(recipe, done.rows),
        bundle_sha256=bundle.sha256,
        provenance=provenance,
    )
    folder.write_document("benchmark.json", document)
    folder.record_stage(BENCHMARK, recipe, provenance, inputs)
    store.clear()
    return document


def _work(recipe: Recipe, bundle: Bundle, subjects: list[Subject], folder: RunFolder) -> Work:
    section = recipe.benchmark
    found: list[FoundEngine] = []
    if "tensorrt" in section.runners:
        found = engines_for(folder.engines, bundle, section.precisions, section.runners)

    def cells_of(batches: Sequence[int]) -> list[Cell]:
        cells = [cell for subject in subjects for cell in _cells(section, subject, batches)]
        return [*cells, *engine_cells(found, batches, section.streams, bundle.spec)]

    return Work(
        cells_of=cells_of,
        batches=section.batches,
        effort=Effort(section.min_seconds, section.min_iterations, section.max_warmup_seconds),
        load=load_of(section, recipe.seed),
        engines=found,
        cross_check=section.cross_check is not None,
        spec=bundle.spec,
    )


def _subjects(recipe: Recipe, folder: RunFolder, sets: DataSets, bundle: Bundle) -> Iterator[Subject]:
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
        yield Subject("teacher", teacher.model, {} if onnx is None else {FULL: onnx}, teacher_spec)
    models = {name: bundle.model(name) for name in recipe.benchmark.precisions or in_order(bundle.precisions)}
    yield Subject("student", deployed(student, bundle.spec), models, bundle.spec)


def _cells(section: BenchmarkSection, subject: Subject, batches: Sequence[int]) -> Iterator[Cell]:
    """Of torch in fp32, of ONNX Runtime in every precision that there is."""
    for runner in section.runners:
        if runner == "tensorrt":  # of the student alone: see `engine_cells`
            continue
        precisions = [FULL] if runner == "torch" else list(subject.onnx)
        for precision, provider, batch in product(precisions, _providers(section, runner), batches):
            for threads in thread_counts(section.threads, provider):
                yield Cell(
                    role=subject.role,
                    runner=runner,
                    provider=provider,
                    precision=precision,
                    batch=batch,
                    spec=subject.spec,
                    open=partial(_open, section, subject, runner, provider, precision, batch, threads),
                    required=section.precisions is not None,
                    size_mb=None if runner == "torch" else _size_mb(subject.onnx[precision]),
                    threads=threads,
                )


def _size_mb(model: bytes | Path) -> float:
    return (len(model) if isinstance(model, bytes) else model.stat().st_size) / 1e6


def _providers(section: BenchmarkSection, runner: str) -> list[str]:
    """The providers to time; `auto` is the CPU and, where it is present, CUDA."""
    if runner == "onnxruntime":
        return named_providers(section.providers)
    there = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    asked: list[str] = []
    for provider in section.providers:
        if provider == TENSORRT.name:  # ONNX Runtime's alone
            continue
        if provider != "auto" and provider not in there:
            raise EnvironmentProblem(
                f"benchmark.providers names {provider}, which torch lacks here (it has {', '.join(there)}).",
                "Change benchmark.providers, or see: dskd-compress doctor",
            )
        asked += there if provider == "auto" else [provider]
    return list(dict.fromkeys(asked))


def _open(
    section: BenchmarkSection,
    subject: Subject,
    runner: str,
    provider: str,
    precision: str,
    batch: int,
    threads: int | None,
) -> Runner:
    if runner == "torch":
        return TorchRunner(subject.model, device=provider, threads=threads)
    return OnnxRuntimeRunner(
        subject.onnx[precision],
        provider=provider,
        threads=threads,
        precision=precision,
        allow_cpu=section.allow_cpu,
        shapes=profile_shapes(subject.spec, [batch]),
    )
