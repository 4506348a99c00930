"""Precisions of an exported student: calibration images, models, facts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from dskd_compress.config import ExportSection, Recipe
from dskd_compress.data import DataSets, StreamSet, iter_images
from dskd_compress.run_folder import RunFolder
from dskd_export.bundle import BundledModel, CalibrationFacts, PrecisionCalibration
from dskd_export.bundle.manifest import model_name
from dskd_export.documents.export import PrecisionFacts
from dskd_export.documents.precision import QUANTIZED, Precision
from dskd_export.errors import DataError
from dskd_export.precision.build import PrecisionModel, Settings
from dskd_export.precision.calibration import Calibration
from dskd_export.precision.quantize import PERCENTILE
from dskd_export.precision.targets import TARGETS
from dskd_export.runtime.images import pixel_sha256
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.spec import ModelSpec


@dataclass(frozen=True)
class CalibrationImages:
    """Images drawn for calibration, and the proof that none of them is judged."""

    calibration: Calibration
    evaluation_images: int  # number of images whose hashes they were compared with
    left_out: int  # training images that were drawn, but are also evaluation images, pixel by pixel


def list_requested_precisions(section: ExportSection) -> tuple[Precision, ...]:
    """List the requested precisions other than fp32, in build order."""
    chosen = TARGETS[section.target].precisions if section.precisions == "auto" else section.precisions
    return tuple(dict.fromkeys(precision for precision in chosen if precision != "fp32"))


def list_bundled_precisions(folder: RunFolder) -> list[Precision]:
    """List the precisions in the bundle of a run."""
    return [name for name in get_args(Precision) if (folder.bundle / model_name(name)).is_file()]


def settle_precisions(recipe: Recipe, folder: RunFolder, given: Sequence[str]) -> tuple[Recipe, list[str]]:
    """Settle which models an export makes: those requested, those in the bundle, or those of the target.

    - What this command chooses (`export.precisions`) holds, in the words of the run where these mean the same
      models: recipe, manifest and later stages then stay as they are.
    - Else the bundle keeps its models. A recipe file does not list what `export --precision` made since; the run's
      own recipe does.
    - Else a target that this command names gets all precisions that suit it, where only fp32 was chosen so far.

    Args:
        given: what was set on this command line, `key=value`.

    Returns:
        The recipe, and a sentence for each change.
    """
    keys = {text.partition("=")[0].strip() for text in given}
    auto = recipe.export.precisions == "auto"
    wanted = list_requested_precisions(recipe.export)
    kept = [name for name in list_bundled_precisions(folder) if name not in ("fp32", *wanted)]
    if "export.precisions" in keys and not auto:
        return recipe.model_copy(update={"export": _reword_precisions(recipe.export, wanted, folder)}), []
    if keys & {"export", "export.precisions"} or (auto and "export.target" in keys):
        return recipe, []
    if kept:
        section, said = _keep_precisions(recipe, folder, keys, kept)
    elif "export.target" in keys and not wanted and not auto:
        section = recipe.export.model_copy(update={"precisions": "auto"})
        suited = ", ".join(("fp32", *list_requested_precisions(section)))
        said = [f"Precisions for {section.target}: {suited}. For fp32 only: --precision fp32"]
    else:
        return recipe, []
    return recipe.model_copy(update={"export": section}), said


def _keep_precisions(
    recipe: Recipe, folder: RunFolder, keys: set[str], kept: Sequence[Precision]
) -> tuple[ExportSection, list[str]]:
    """Add the models of the bundle to the export settings; without other settings take those that made them."""
    said = [f"The bundle keeps {', '.join(kept)}. To leave them out: --precision fp32"]
    wanted = list_requested_precisions(recipe.export)
    if (folder / "recipe.yaml").is_file():
        own = folder.read_recipe().export
        if set(kept) <= set(list_requested_precisions(own)) and not any(key.startswith("export.") for key in keys):
            return own, said
    chosen = recipe.export.model_copy(update={"precisions": ("fp32", *wanted, *kept)})
    again = _reword_precisions(chosen, [*wanted, *kept], folder)
    return again, [] if again.precisions == "auto" else said


def _reword_precisions(section: ExportSection, wanted: Collection[Precision], folder: RunFolder) -> ExportSection:
    """Write a choice of precisions as the recipe of the run does where both mean the same models.

    Nothing is then repeated for its wording.
    """
    if not (folder / "recipe.yaml").is_file():
        return section
    again = section.model_copy(update={"precisions": folder.read_recipe().export.precisions})
    return again if set(list_requested_precisions(again)) == set(wanted) else section


def draw_calibration(recipe: Recipe, sets: DataSets, spec: ModelSpec) -> CalibrationImages:
    """Draw training images, spread over the classes, that are not among the evaluation images.

    Compared are decoded pixels: the same photograph in both splits is found also under two names.
    (CIFAR-100 holds such pairs.)

    Raises:
        DataError: every training image is an evaluation image as well.
    """
    section = recipe.export.calibration
    seed = recipe.seed if section.seed is None else section.seed
    tolerated = sets.max_unreadable
    val = iter_images(sets.val, recipe.validation.images, recipe.seed, max_unreadable=tolerated)
    judged = {pixel_sha256(image) for image, _, _ in val}
    inputs, labels, hashes, left_out = [], [], [], 0
    limit = None if isinstance(sets.train, StreamSet) else len(sets.train)  # with a limit they are spread
    for image, label, _ in iter_images(sets.train, limit, seed, max_unreadable=tolerated):
        sha256 = pixel_sha256(image)
        if sha256 in judged:
            left_out += 1
            continue
        inputs.append(preprocess_batch([image], spec))
        labels.append(label)
        hashes.append(sha256)
        if len(inputs) == section.images:
            break
    if not inputs:
        raise DataError(
            f"All {left_out} training images of {sets.source} are also validation images: nothing is left to "
            "calibrate on.",
            "Keep training and validation images apart.",
        )
    calibration = Calibration(np.concatenate(inputs), np.array(labels, dtype=np.int64), tuple(hashes), seed)
    calibration.check_disjoint(judged)
    return CalibrationImages(calibration, len(judged), left_out)


def collect_settings(section: ExportSection) -> Settings:
    """Collect the recipe's settings for building precisions."""
    quantize = section.quantize
    rest = TARGETS[section.target].rest if quantize.rest == "auto" else quantize.rest
    return Settings(rest=rest, **quantize.model_dump(exclude={"rest", "search_images"}))


def wrap_for_bundle(built: PrecisionModel) -> BundledModel:
    """Wrap a built model for the bundle."""
    details: dict[str, object] = {
        "opset": built.opset,
        "rest": built.metadata.rest,
        "kept_in_float": list(built.kept),
    }
    if built.search is not None:
        details["search"] = {"evaluations": built.search.evaluations, "good": built.search.good}
    return BundledModel(built.model, producer=built.metadata.producer, details=details)


def collect_calibration_facts(
    built: Mapping[Precision, PrecisionModel], images: CalibrationImages, section: ExportSection
) -> CalibrationFacts:
    """Collect the calibration facts for the bundle."""
    method = section.quantize.method
    return CalibrationFacts(
        seed=images.calibration.seed,
        image_sha256=images.calibration.image_sha256,
        evaluation_images=images.evaluation_images,
        precisions={
            precision: PrecisionCalibration(
                method=method if precision in QUANTIZED else "ranges",
                percentile=PERCENTILE if precision in QUANTIZED and method == "percentile" else None,
                producer=model.metadata.producer,
            )
            for precision, model in built.items()
        },
    )


def collect_precision_facts(built: PrecisionModel) -> PrecisionFacts:
    """Collect the facts of a model for `export.json`."""
    return PrecisionFacts(
        precision=built.metadata.precision,
        producer=built.metadata.producer,
        opset=built.opset,
        rest=built.metadata.rest,
        size_mb=len(built.model) / 1e6,
        kept=list(built.kept),
        search=built.search,
        seconds=built.seconds,
    )
