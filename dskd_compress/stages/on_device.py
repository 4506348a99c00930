"""Validate, time and report a bundle by the settings of a recipe that it does not have. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from dskd_compress.config import Recipe
from dskd_compress.console import Output
from dskd_compress.recipe import as_typed, recipe_from_mapping
from dskd_compress.run_folder import BENCHMARK, VALIDATE, digest, recipe_sha256
from dskd_compress.stages.benchmark_settings import cell_store, judged, load_of
from dskd_compress.stages.rules import rules_of
from dskd_export.benchmark.cells import Effort, write_samples
from dskd_export.bundle import Bundle
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.documents.validation import ValidationDocument
from dskd_export.engine.document import engines_folder
from dskd_export.errors import UsageError
from dskd_export.files.names import printable
from dskd_export.on_device import benchmark, validate
from dskd_export.on_device.results import MEASURED, check_out, write_results, writing_results
from dskd_export.on_device.source import default_out, opened
from dskd_export.runtime.labelled_images import LabelledImages, open_labelled

# The rest of a recipe is about how the bundle came to be.
_SETTABLE = ("validate", "budget", "benchmark", "data.max_unreadable")


def validate_source(
    source: Path, overrides: list[str], images: Path | None, out: Path | None, output: Output
) -> tuple[ValidationDocument, Path]:
    """Validate a bundle; writes `validation.json` into the folder of results, which is given back.

    Raises what `dskd_export.on_device.validate.validate_bundle` does, and:

    Raises:
        BundleError: this is no bundle, or a damaged one.
        UsageError: a key of the recipe is set that has no meaning here, or `out` lies in the bundle.
    """
    folder = out or default_out(source)
    check_out(folder, source)
    with opened(source) as bundle, writing_results(folder, output.warn):
        recipe = recipe_of(bundle, overrides)
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
        write_results(
            folder,
            bundle,
            VALIDATE,
            document,
            ("validation.json",),
            document.provenance,
            {"validate": digest(section.model_dump(mode="json")), "budget": digest(recipe.budget.model_dump())},
            None if labelled is None else document.data.sha256,
        )
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
    folder = out or default_out(source)
    check_out(folder, source)
    with opened(source) as bundle, writing_results(folder, output.warn):
        recipe = recipe_of(bundle, overrides)
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
        write_results(
            folder,
            bundle,
            BENCHMARK,
            document,
            MEASURED,
            document.provenance,
            {"benchmark": digest(section.model_dump(mode="json"))},
        )
        store.clear()
    return document, folder


def benchmark_settings(source: Path, recipe: Recipe) -> benchmark.Settings:
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
    _check_settable(overrides, ("report",))
    return _recipe("none", "none", overrides).report.title


def recipe_of(bundle: Bundle, overrides: list[str]) -> Recipe:
    """A recipe with the names and the seed of a bundle, the defaults of all else, and what is set.

    Raises:
        RecipeError: a value is not valid.
        UsageError: a key is set that has no meaning for a bundle.
    """
    _check_settable(overrides, _SETTABLE)
    origin = bundle.manifest.provenance
    recipe = _recipe(origin.teacher or "none", origin.student, overrides)
    return recipe.model_copy(update={"seed": origin.seed})


def _recipe(teacher: str, student: str, overrides: list[str]) -> Recipe:
    return recipe_from_mapping({"teacher": {"name": teacher}, "student": {"name": student}}, overrides)


def _check_settable(overrides: list[str], allowed: tuple[str, ...]) -> None:
    for text in overrides:
        key = text.partition("=")[0].strip()
        if not any(key == name or key.startswith(f"{name}.") for name in allowed):
            raise UsageError(
                f"{as_typed(text)}: a bundle has no recipe to change.",
                f"What can be set here: {', '.join(allowed)}.",
            )


def _labelled(
    folder: Path | None, bundle: Bundle, count: int | None, seed: int, output: Output
) -> LabelledImages | None:
    if folder is None:
        return None
    labelled = open_labelled(folder, bundle.spec.classes)
    if labelled.left_out:
        output.once(f"{printable(str(folder))}: left out {', '.join(labelled.left_out)}")
    return labelled.first(count, seed)
