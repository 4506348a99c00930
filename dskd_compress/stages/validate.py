"""Validate a run or a bundle: reference, images and files around the one flow. Only a run needs torch."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dskd_compress.config import Recipe
from dskd_compress.console import Output
from dskd_compress.recipe import bundle_settings
from dskd_compress.run_folder import VALIDATE, RunFolder, digest, recipe_sha256, writes_run
from dskd_export.bundle import Bundle, open_bundle
from dskd_export.bundle.results import BundleResults, open_results
from dskd_export.documents.base import read_document
from dskd_export.documents.training import TrainingDocument
from dskd_export.documents.validation import ValidationDocument
from dskd_export.engine.document import engines_folder
from dskd_export.errors import BundleError, DataError, ModelError, RecipeError, UsageError
from dskd_export.files.atomic import sha256_file
from dskd_export.provenance import Stopwatch
from dskd_export.runtime.labelled_images import open_images
from dskd_export.settings import BudgetSettings
from dskd_export.telemetry.host import device_name
from dskd_export.validation import run as flow
from dskd_export.validation.models import open_models
from dskd_export.validation.sample_size import describe_images, images_needed

if TYPE_CHECKING:
    from dskd_compress.data import DataSets, ImageSet, StreamSet
    from dskd_compress.torch_reference import OpenTeacher

_TEACHER_FED_WRONGLY = ("teacher_input", "class_order")
"""Findings of a training with which the teacher is better than its answers here, so that it proves no student."""

ENOUGH_IMAGES = 256
"""With fewer a gate says little; the whole validation set is always enough."""

MOST_TRAINING_IMAGES = 512
"""On which overfitting is looked for; never more than there are of validation."""


@writes_run
def run_validate(recipe: Recipe, folder: RunFolder, output: Output) -> ValidationDocument:
    """Validate the bundle of a run; writes `validation.json`, but not of a pair. The caller judges `passed`.

    Raises:
        DataError: there is no bundle, it is not of this student, or its classes are not those of the data.
        EnvironmentProblem: a requested provider or precision cannot run here, or none can.
        MissingExtra: ONNX Runtime is not installed.
        UsageError: the bundle does not hold a requested precision.
    """
    from dskd_compress.data import iter_images
    from dskd_compress.stages.setup import open_checked_data
    from dskd_compress.torch_reference import (
        TorchReference,
        load_torch_student,
        measure_training_accuracy,
        timm_batches,
    )
    from dskd_compress.weights import check_classes, load_trained

    watch = Stopwatch()
    settings = recipe.validation
    weights = folder.require("student.safetensors", "distill")
    folder.require("bundle/manifest.json", "export")
    results = folder.results(VALIDATE, recipe)
    bundle = open_bundle(folder.bundle)
    if bundle.spec.student_sha256 != sha256_file(weights):
        raise BundleError(
            f"{folder.bundle} was exported from another student than {weights}.",
            f"Export it again: dskd-compress export {folder.path}",
        )
    student, info = load_trained(weights)
    sets = open_checked_data(recipe, output, every_class=False)
    facts = sets.facts()
    check_classes(info.classes, sets, weights, "distill")
    skipped: list[str] = []
    images = iter_images(
        sets.val, settings.images, recipe.seed, max_unreadable=sets.max_unreadable, skipped=skipped
    )
    with ExitStack() as stack:
        load_torch = partial(load_torch_student, student, info, bundle.spec)
        models = open_models(bundle, folder.engines, settings, stack, load_torch)
        teacher = _open_teacher(recipe, folder, sets, stack)
        total = _count(sets.val, settings.images)
        if settings.pair is None:
            precisions = [model.name.precision for model in models.candidates]
            _warn_of_few(recipe.budget, precisions, total, output, teacher=teacher.runner is not None)
        with output.progress("Validating", total, unit="image") as progress:
            document = flow.validate(
                bundle,
                models,
                TorchReference(models.reference, bundle, settings, info, teacher),
                timm_batches(images, info.preprocessing, bundle.spec, teacher.preprocessing),
                settings,
                recipe.budget,
                facts=lambda: facts.model_copy(update={"skipped": sorted(set(skipped))}),
                provenance=partial(watch.provenance, seed=recipe.seed, recipe_sha256=recipe_sha256(recipe)),
                on_images=progress.advance,
                warn=output.warn,
            )
            used = next(iter(document.accuracy.values())).images
            if settings.pair is None:
                drawn = iter_images(
                    sets.train, min(used, MOST_TRAINING_IMAGES), recipe.seed, max_unreadable=sets.max_unreadable
                )
                found = measure_training_accuracy(models.reference, drawn, info.preprocessing)
                document = document.model_copy(update={"training_accuracy": found})
    if used < ENOUGH_IMAGES and used < (document.data.val_images or used):
        output.warn(f"{used} images are few: validate.images should be at least {ENOUGH_IMAGES}, or all.")
    if settings.pair is None:  # else it says nothing of the student, and would replace a verdict on it
        results.write(document, document.data.sha256)
    return document


def validate_bundle(
    source: Path, overrides: list[str], images: Path | None, out: Path | None, output: Output
) -> tuple[ValidationDocument, Path]:
    """Validate a bundle; writes `validation.json` into the folder of results, which is returned.

    A pair does not replace a validation of the whole bundle.

    Args:
        source: the bundle, packed or not.
        overrides: `key=value` of the sections that a bundle takes.
        images: folder of labelled images; None: the golden images alone.
        out: None: `results/<bundle>/<device>`.
        output: shows progress and warnings.

    Raises:
        BundleError: this is no bundle, or a damaged one.
        DataError: there are no images, or too many cannot be read.
        EnvironmentProblem: a requested provider or precision cannot run here, or none can.
        UsageError: a key without a meaning for a bundle is set, `out` is in the bundle, or it holds a verdict on
            labelled images and there are none now.
    """
    watch = Stopwatch()
    with open_results(source, out, device_name(), output.warn) as (bundle, folder):
        recipe = bundle_settings(overrides, seed=bundle.manifest.provenance.seed)
        settings = recipe.validation
        older = _read_older(folder, bundle)
        keep_older = older is not None and older.student is not None and settings.pair is not None
        if older is not None and older.accuracy and images is None and not keep_older:
            raise UsageError(
                f"{folder} holds a verdict on the labelled images of {older.data.source}; now none are given.",
                "Give them: --images FOLDER, or write to another folder: --out FOLDER",
            )
        labelled = open_images(images, bundle.spec.classes, settings.images, recipe.seed, output.once)
        total = len(bundle.golden().labels) if labelled is None else len(labelled.files)
        if labelled is not None and settings.pair is None:
            precisions = settings.precisions or bundle.manifest.precisions
            _warn_of_few(recipe.budget, precisions, total, output, teacher=False)
        with output.progress("Validating", total, unit="image") as progress:
            document = flow.validate_bundle(
                bundle,
                engines_folder(source),
                settings,
                recipe.budget,
                labelled,
                recipe.data.max_unreadable,
                provenance=partial(watch.provenance, seed=recipe.seed, recipe_sha256=recipe_sha256(recipe)),
                on_images=progress.advance,
                warn=output.warn,
            )
        if labelled is None:
            output.print(
                f"No images were given (--images): compared on the bundle's {total} golden images alone. Accuracy "
                "and the budget of it are not judged."
            )
        digests = {
            "validate": digest(settings.model_dump(mode="json")),
            "budget": digest(recipe.budget.model_dump()),
        }
        results = BundleResults(folder, bundle, VALIDATE, ("validation.json",), digests)
        if keep_older:
            output.print(f"{folder} holds a validation of the whole bundle, which the pair does not replace.")
        else:
            results.write(document, None if labelled is None else document.data.sha256)
    return document, folder


def _warn_of_few(
    budget: BudgetSettings, precisions: Iterable[str], images: int, output: Output, *, teacher: bool
) -> None:
    """Warn before anything is run of limits that so many images cannot show; 0: their number is unknown."""
    needed = images_needed(budget, precisions, teacher=teacher, device=device_name())
    if images and not all(one.can_be_shown(images) for one in needed):
        output.warn(describe_images(needed, images))


def _read_older(folder: Path, bundle: Bundle) -> ValidationDocument | None:
    """Read the validation of the same bundle in a folder of results; None: there is none that can be read."""
    path = folder / "validation.json"
    try:
        found = read_document(path, ValidationDocument) if path.is_file() else None
    except DataError:
        return None
    return found if found is not None and found.bundle_sha256 == bundle.sha256 else None


def _open_teacher(recipe: Recipe, folder: RunFolder, sets: DataSets, stack: ExitStack) -> OpenTeacher:
    """Open the teacher that the student is judged by; it is closed with the stack.

    Where its weights are missing, the student is not judged by it, and the reason is kept.
    """
    import torch

    from dskd_compress.teachers.load import load_teacher
    from dskd_compress.teachers.presence import explain_absence
    from dskd_compress.torch_reference import OpenTeacher
    from dskd_compress.torch_runner import TorchRunner

    if recipe.budget.student_drop is None or recipe.validation.pair is not None:
        return OpenTeacher()
    absence = explain_absence(recipe, folder)
    if absence is not None:
        return OpenTeacher(missing=absence)
    try:
        teacher = load_teacher(recipe, folder, sets)
    except (DataError, ModelError, RecipeError) as error:
        return OpenTeacher(missing=error.message.rstrip("."))
    on_gpu = torch.cuda.is_available() and recipe.train.device != "cpu"
    runner = stack.enter_context(TorchRunner(teacher.model, device="cuda" if on_gpu else "cpu"))
    return OpenTeacher(runner, teacher.format, doubt=_doubt_of_teacher(folder))


def _doubt_of_teacher(folder: RunFolder) -> str:
    """Read what the distillation found against the teacher's input or classes; empty: nothing was found."""
    path = folder / "distill.json"
    if not path.is_file():
        return ""
    found = read_document(path, TrainingDocument).findings or []
    # `accuracy` is of augmented training images; here the teacher is judged on the validation images themselves.
    doubts = [one for one in found if one.kind in _TEACHER_FED_WRONGLY and one.term != "accuracy"]
    return "" if not doubts else f"{doubts[0].seen} {doubts[0].cure}".rstrip(".")


def _count(images: ImageSet | StreamSet, limit: int | None) -> int:
    """Images to come; 0 for a stream of unknown length."""
    from dskd_compress.data import StreamSet

    there = images.length if isinstance(images, StreamSet) else len(images)
    return min(there, limit) if there is not None and limit is not None else there or limit or 0
