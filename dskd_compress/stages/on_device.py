"""Validate, time and report a bundle by the settings of a recipe that it does not have. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from dskd_compress.console import Output
from dskd_compress.recipe import bundle_settings
from dskd_compress.run_folder import VALIDATE, digest, recipe_sha256
from dskd_compress.stages.rules import rules_of
from dskd_export.bundle import Bundle
from dskd_export.bundle.results import BundleResults, check_out, hold_results, results_folder
from dskd_export.bundle.source import open_source
from dskd_export.documents.validation import ValidationDocument
from dskd_export.engine.document import engines_folder
from dskd_export.files.names import printable
from dskd_export.on_device import validate
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
        labelled = open_images(images, bundle, section.images, recipe.seed, output)
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


def report_title(overrides: list[str]) -> str | None:
    """The title that is set for a report without a recipe.

    Raises:
        UsageError: another key than report.title is set.
    """
    return bundle_settings(overrides, ("report",)).report.title


def open_images(
    folder: Path | None, bundle: Bundle, count: int | None, seed: int, output: Output
) -> LabelledImages | None:
    """Find the labelled images of a folder, at most `count` of them; None where no folder is given."""
    if folder is None:
        return None
    labelled = open_labelled(folder, bundle.spec.classes)
    if labelled.left_out:
        output.once(f"{printable(str(folder))}: left out {', '.join(labelled.left_out)}")
    return labelled.first(count, seed)
