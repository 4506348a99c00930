"""Benchmark a run or a bundle: sources, images and files around the one flow. Only a run needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dskd_compress.config import Recipe
from dskd_compress.console import Output
from dskd_compress.recipe import BundleSettings, bundle_settings
from dskd_compress.run_folder import BENCHMARK, RunFolder, digest, recipe_sha256, writes_run
from dskd_export.benchmark.plan import BenchmarkPlan, plan_benchmark
from dskd_export.benchmark.run import benchmark, draw_images
from dskd_export.benchmark.store import open_store, write_samples
from dskd_export.bundle import Bundle, open_bundle
from dskd_export.bundle.results import MEASURED, BundleResults, ResultsFolder, open_results
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.documents.runner_name import RunnerName
from dskd_export.engine.document import engines_folder
from dskd_export.errors import DataError
from dskd_export.provenance import Stopwatch
from dskd_export.runtime.labelled_images import open_images
from dskd_export.runtime.loader import FULL, Loader, OnnxLoader, select_providers
from dskd_export.telemetry.host import device_name

if TYPE_CHECKING:
    from PIL import Image

    from dskd_compress.data import DataSets


@writes_run
def run_benchmark(recipe: Recipe, folder: RunFolder, output: Output, *, fresh: bool = False) -> BenchmarkDocument:
    """Benchmark teacher and student of a run; writes `benchmark.json` and `benchmark.samples.npz`.

    An interrupted benchmark resumes, unless `fresh` is set. The caller judges the budget.

    Raises:
        DataError: there is no bundle yet, or the teacher is to be timed and was not exported.
        EnvironmentProblem: a provider that the recipe names is not available here.
    """
    from dskd_compress.data import iter_images
    from dskd_compress.stages.setup import open_checked_data

    watch = Stopwatch()
    folder.require("bundle/manifest.json", "export")
    results = folder.results(BENCHMARK, recipe)
    bundle = open_bundle(folder.bundle)
    sets = open_checked_data(recipe, output)
    plan = _plan(recipe, folder, sets, bundle)
    drawn = iter_images(sets.val, plan.max_batch, recipe.seed, max_unreadable=sets.max_unreadable)
    images = [image for image, _, _ in drawn], ""
    return _benchmark(plan, images, recipe, watch, results, output, fresh)


def benchmark_bundle(
    source: Path,
    overrides: list[str],
    images: Path | None,
    out: Path | None,
    output: Output,
    *,
    fresh: bool = False,
) -> tuple[BenchmarkDocument, Path]:
    """Benchmark a bundle; writes `benchmark.json` and its samples into the folder of results, which is returned.

    An interrupted benchmark resumes, unless `fresh` is set. The caller judges the budget.

    Raises:
        BundleError: this is no bundle, or a damaged one.
        DataError: an image cannot be read.
        UsageError: a key without a meaning for a bundle is set, or `out` is in the bundle.
    """
    watch = Stopwatch()
    with open_results(source, out, device_name(), output.warn) as (bundle, folder):
        recipe = bundle_settings(overrides, seed=bundle.manifest.provenance.seed)
        plan = plan_benchmark(bundle, recipe.benchmark, engines_folder(source))
        labelled = open_images(images, bundle.spec.classes, plan.max_batch, recipe.seed, output.once)
        drawn = draw_images(labelled, plan.max_batch, recipe.seed)
        digests = {"benchmark": digest(recipe.benchmark.model_dump(mode="json"))}
        results = BundleResults(folder, bundle, BENCHMARK, MEASURED, digests)
        return _benchmark(plan, drawn, recipe, watch, results, output, fresh), folder


def _benchmark(
    plan: BenchmarkPlan,
    images: tuple[Sequence[Image.Image], str],
    recipe: Recipe | BundleSettings,
    watch: Stopwatch,
    folder: ResultsFolder,
    output: Output,
    fresh: bool,
) -> BenchmarkDocument:
    """Run the benchmark with its store and a progress display, and write its results."""
    store = open_store(folder.path, plan.bundle.sha256, plan.settings, fresh=fresh)
    with output.progress("Timing", plan.steps, unit="measurement") as progress:
        document, samples = benchmark(
            plan,
            *images,
            recipe.budget,
            store,
            seed=recipe.seed,
            provenance=partial(watch.provenance, seed=recipe.seed, recipe_sha256=recipe_sha256(recipe)),
            on_step=lambda: progress.advance(1),
            on_status=lambda text: progress.update(description=text),
        )
    write_samples(folder.path / "benchmark.samples.npz", samples)
    folder.write(document)
    store.clear()
    return document


def _plan(recipe: Recipe, folder: RunFolder, sets: DataSets, bundle: Bundle) -> BenchmarkPlan:
    """Plan the teacher, then the student, each in torch, ONNX Runtime and TensorRT."""
    from dskd_compress.stages.export import TEACHER_ONNX, make_teacher_spec
    from dskd_compress.teachers.load import load_teacher
    from dskd_compress.teachers.presence import explain_absence
    from dskd_compress.torch_runner import find_torch
    from dskd_compress.weights import load_trained
    from dskd_export.bundle.manifest import weights_name
    from dskd_export.onnx_from_torch import wrap_for_deployment

    settings = recipe.benchmark
    student, info = load_trained(folder.require("student.safetensors", "distill"))
    module = wrap_for_deployment(student, bundle.spec)
    torch_too = {"torch": lambda *_: find_torch(module, bundle.spec, settings.providers)}
    plan = plan_benchmark(bundle, settings, folder.engines, torch_too)
    if not settings.teacher or explain_absence(recipe, folder) is not None:
        return plan
    onnx = folder / TEACHER_ONNX
    if "onnxruntime" in settings.runners and not onnx.is_file():
        raise DataError(
            f"{onnx} is missing, so the teacher cannot be timed.",
            f"Set export.teacher and run: dskd-compress export {folder.path}. Or set benchmark.teacher=false.",
        )
    teacher = load_teacher(recipe, folder, sets)
    spec = make_teacher_spec(recipe, sets, teacher, student, info)
    files = [onnx, folder / weights_name(TEACHER_ONNX)]
    loaders: list[Loader] = []
    if "torch" in settings.runners:
        loaders += find_torch(teacher.model, spec, settings.providers)
    if "onnxruntime" in settings.runners:
        loaders += [
            OnnxLoader(
                name=RunnerName.of("onnxruntime", provider, FULL),
                spec=spec,
                size_mb=sum(file.stat().st_size for file in files if file.is_file()) / 1e6,
                read=lambda: onnx,
                allow_cpu=settings.allow_cpu,
            )
            for provider in select_providers(settings.providers)
        ]
    return replace(plan, models=[*(("teacher", loader) for loader in loaders), *plan.models])
