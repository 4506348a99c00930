"""Validate, time and report a bundle by the settings of a recipe that it does not have. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from dskd_compress.console import Output
from dskd_compress.recipe import BundleSettings, bundle_settings
from dskd_compress.run_folder import BENCHMARK, VALIDATE, digest, recipe_sha256
from dskd_compress.stages.benchmark_settings import cell_store, judged, load_of
from dskd_compress.stages.rules import rules_of
from dskd_export.benchmark.cells import Effort, write_samples
from dskd_export.bundle import Bundle
from dskd_export.bundle.results import MEASURED, BundleResults, check_out, hold_results, results_folder
from dskd_export.bundle.source import open_source
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.documents.validation import ValidationDocument
from dskd_export.engine import engines_folder
from dskd_export.errors import UsageError
from dskd_export.files.names import printable
from dskd_export.on_device import benchmark, validate
from dskd_export.runtime.labelled_images import LabelledImages, open_labelled
from dskd_export.telemetry.device_name import device_name


def validate_source(
    source: Path, overrides: list[str], images: Path | None, out: Path | None, output: Output
) -> tuple[ValidationDocument, Path]:
    """Validate a bundle; writes `validation.json` into the folder of results, which is given back.

    Raises what `dskd_export.on_device.validate.validate_bundle` does, and:

    Raises:
        BundleError: this is no bundle, or a damaged one.
        UsageError: a key of the recipe is set that has no meaning here, or `out` lies in the bundle.
    """
    folder = out or results_folder(source, device_name())
    check_out(folder, source)
    with open_source(source) as bundle, hold_results(folder, output.warn):
        recipe = bundle_settings(overrides, seed=bundle.manifest.provenance.seed)
        section = recipe.validation
        labelled = _labelled(images, bundle, section.images, recipe.seed, output)
        settings = validate.Settings(
            runners=section.runners,
            engines=engines_folder(source),
            precisions=section.precisions,
            providers=section.providers,
            allow_cpu=section.allow_cpu,
            pair=section.pair,
            batches=section.batches,
            max_unreadable=recipe.data.max_unreadable,
            student_drop=recipe.budget.student_drop,
            seed=recipe.seed,
            recipe_sha256=recipe_sha256(recipe),
        )
        total = len(bundle.golden().labels) + (0 if labelled is None else len(labelled.files))
        with output.progress("Validating", total, unit="image") as progress:
            document = validate.validate_bundle(
                bundle, settings, lambda precision: rules_of(recipe, precision), labelled, progress.advance
            )
        if document.data.skipped:
            output.warn(f"left out images that cannot be read: {', '.join(document.data.skipped[:5])}")
        if labelled is None:
            output.print(
                f"No images were given (--images): compared on the bundle's {document.data.val_images} golden "
                "images alone. Accuracy, and what a budget says of it, is not judged."
            )
        digests = {
            "validate": digest(section.model_dump(mode="json")),
            "budget": digest(recipe.budget.model_dump()),
        }
        results = BundleResults(folder, bundle, VALIDATE, ("validation.json",), digests)
        results.write(document, None if labelled is None else document.data.sha256)
    return document, folder


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
        labelled = _labelled(images, bundle, work.most_images, recipe.seed, output)
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


def report_title(overrides: list[str]) -> str | None:
    """The title that is set for a report without a recipe.

    Raises:
        UsageError: another key than report.title is set.
    """
    return bundle_settings(overrides, ("report",)).report.title


def _labelled(
    folder: Path | None, bundle: Bundle, count: int | None, seed: int, output: Output
) -> LabelledImages | None:
    if folder is None:
        return None
    labelled = open_labelled(folder, bundle.spec.classes)
    if labelled.left_out:
        output.once(f"{printable(str(folder))}: left out {', '.join(labelled.left_out)}")
    return labelled.first(count, seed)
