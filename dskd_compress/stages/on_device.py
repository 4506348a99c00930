"""Validate, time and report a bundle by the settings of a recipe that it does not have. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from dskd_compress.console import Output
from dskd_compress.recipe import BundleSettings, bundle_settings
from dskd_compress.run_folder import BENCHMARK, digest, recipe_sha256
from dskd_compress.stages.benchmark_settings import cell_store, judged, load_of
from dskd_export.benchmark.cells import Effort, write_samples
from dskd_export.bundle.results import MEASURED, BundleResults, check_out, hold_results, results_folder
from dskd_export.bundle.source import open_source
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.engine import engines_folder
from dskd_export.errors import UsageError
from dskd_export.on_device import benchmark
from dskd_export.runtime.labelled_images import open_images
from dskd_export.telemetry.device_name import device_name


def benchmark_source(
    source: Path,
    overrides: list[str],
    images: Path | None,
    out: Path | None,
    output: Output,
    *,
    fresh: bool = False,
) -> tuple[BenchmarkDocument, Path]:
    """Time a bundle; writes `benchmark.json` and its samples into the folder of results, which is given back.

    Cells that an interrupted benchmark has done are kept and taken over, unless `fresh` is set. The caller
    judges the budget.

    Raises what `dskd_export.on_device.benchmark.benchmark_bundle` and `validate_source` do.
    """
    folder = out or results_folder(source, device_name())
    check_out(folder, source)
    with open_source(source) as bundle, hold_results(folder, output.warn):
        recipe = bundle_settings(overrides, seed=bundle.manifest.provenance.seed)
        section = recipe.benchmark
        settings = benchmark_settings(source, recipe)
        work = benchmark.work_of(bundle, settings)
        labelled = open_images(images, bundle.spec.classes, work.most_images, recipe.seed, output.once)
        store = cell_store(folder, bundle.sha256, section, fresh)
        with output.progress("Timing", work.steps, unit="cell") as progress:
            document, samples = benchmark.benchmark_bundle(
                bundle,
                settings,
                work,
                labelled,
                store,
                on_step=lambda: progress.advance(1),
                before=lambda text: progress.update(description=text),
            )
        document = document.model_copy(update={"judgements": judged(recipe, document.rows)})
        write_samples(folder / "benchmark.samples.npz", samples)
        digests = {"benchmark": digest(section.model_dump(mode="json"))}
        BundleResults(folder, bundle, BENCHMARK, MEASURED, digests).write(document)
        store.clear()
    return document, folder


def benchmark_settings(source: Path, recipe: BundleSettings) -> benchmark.Settings:
    """What a recipe says of a benchmark, for a bundle.

    Raises:
        UsageError: torch is asked for by name.
    """
    section = recipe.benchmark
    if "torch" in section.runners and "runners" in section.model_fields_set:
        raise UsageError("benchmark.runners names torch, which a bundle is not timed with.", "Leave it out.")
    return benchmark.Settings(
        runners=section.runners,
        engines=engines_folder(source),
        precisions=section.precisions,
        providers=section.providers,
        batches=section.batches,
        threads=section.threads,
        streams=section.streams,
        allow_cpu=section.allow_cpu,
        cross_check=section.cross_check is not None,
        effort=Effort(section.min_seconds, section.min_iterations, section.max_warmup_seconds),
        load=load_of(section, recipe.seed),
        seed=recipe.seed,
        recipe_sha256=recipe_sha256(recipe),
    )
