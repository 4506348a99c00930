"""Hold the bundle's models against torch, on real images, and judge them by the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_compress.config import Recipe
from dskd_compress.console import Output, Progress
from dskd_compress.data import ImageSet, StreamSet, iter_images
from dskd_compress.run_folder import VALIDATE, RunFolder, recipe_sha256, writes_run
from dskd_compress.stages.rules import rules_of
from dskd_compress.stages.setup import open_checked_data
from dskd_compress.stages.validate_inputs import Lot, ahead, lots_of
from dskd_compress.stages.validate_judgement import Measured, judge_bundle
from dskd_compress.stages.validate_runners import as_deployed, open_contest
from dskd_compress.stages.validate_teacher import OpenTeacher, open_teacher
from dskd_compress.weights import check_classes, load_trained
from dskd_export.bundle import Bundle, open_bundle
from dskd_export.documents.validation import Judgement, PreprocessParity, ValidationDocument
from dskd_export.errors import BundleError, DataError
from dskd_export.files.atomic import sha256_file
from dskd_export.provenance import Stopwatch
from dskd_export.runtime.batches import logits_of
from dskd_export.runtime.runner import Array
from dskd_export.validation.accuracy import accuracy_of
from dskd_export.validation.candidates import Contest, Contestant
from dskd_export.validation.golden_images import GoldenImages
from dskd_export.validation.judgement import BATCH, judge_candidate
from dskd_export.validation.parity import compare_inputs, join_inputs
from dskd_export.validation.student import TeacherOutputs, judge_student
from dskd_export.validation.verdicts import conclude

ENOUGH_IMAGES = 256
"""With fewer a gate says little; the whole validation set is always enough."""

# Images whose two inputs differ that are kept to find out why.
_KEPT = 32


@writes_run
def run_validate(recipe: Recipe, folder: RunFolder, output: Output) -> ValidationDocument:
    """Validate the bundle of a run; writes `validation.json`. The caller judges `passed`.

    One pass over the images feeds all runners. Images are read once and dropped, so the memory grows with
    their number only by one row of logits for each runner.

    Raises:
        DataError: there is no bundle, it is not of this student, or its classes are not those of the data.
        EnvironmentProblem: a provider or a precision that was asked for cannot be run here.
        MissingExtra: ONNX Runtime is not installed.
        UsageError: the bundle does not hold a precision that was asked for.
    """
    watch = Stopwatch()
    section = recipe.validation
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
        sets.val, section.images, recipe.seed, max_unreadable=sets.max_unreadable, skipped=skipped
    )
    total = _count(sets.val, section.images)
    with ExitStack() as stack:
        contest = open_contest(section, bundle, folder.engines, as_deployed(student, info, bundle.spec), stack)
        teacher = open_teacher(recipe, folder, sets, stack)
        with output.progress("Validating", total, unit="image") as progress:
            lots = lots_of(images, info.preprocessing, bundle.spec, BATCH, teacher.preprocessing)
            measured = measure(contest, ahead(lots), bundle, info.std, max(section.batches), progress, teacher)
        if measured is None:
            raise DataError(f"{sets.source}: the validation set gave no images.", "Check data.val_split.")
        checks, causes = judge_bundle(recipe, bundle, info, contest, measured)
        judgements: list[Judgement] = []
        for candidate in contest.candidates:
            rules = rules_of(recipe, candidate.precision)
            judgements.append(
                judge_candidate(rules, bundle, contest.reference.name, candidate, measured, judgements)
            )
    judgements += contest.not_run
    of_student = None
    if section.pair is None:
        student_NK, of_teacher = (
            measured.logits[contest.reference.name],
            TeacherOutputs(measured.teacher, teacher.missing),
        )
        of_student = judge_student(
            student_NK, measured.labels, info.classes, of_teacher, recipe.budget.student_drop
        )
    verdict, reason = conclude(of_student, checks, judgements)
    provenance = watch.provenance(
        seed=recipe.seed,
        device="cuda:0" if any(one.provider == "cuda" for one in contest.all) else "cpu",
        recipe_sha256=recipe_sha256(recipe),
    )
    facts = facts.model_copy(update={"skipped": sorted(set(skipped))})
    used = len(measured.labels)
    if used < ENOUGH_IMAGES and used < (facts.val_images or used):
        output.warn(f"{used} images are few: validate.images should be at least {ENOUGH_IMAGES}, or all.")
    document = ValidationDocument(
        verdict=verdict,
        reason=reason,
        student=of_student,
        reference=contest.reference.name,
        accuracy={name: accuracy_of(logits_NK, measured.labels) for name, logits_NK in measured.logits.items()},
        judgements=judgements,
        preprocess=measured.preprocess,
        checks=checks,
        causes=causes,
        passed=verdict == "PASS",
        data=facts,
        bundle_sha256=bundle.sha256,
        provenance=provenance,
    )
    results.write(document, facts.sha256)
    return document


def measure(
    contest: Contest,
    lots: Iterator[Lot],
    bundle: Bundle,
    std: tuple[float, ...],
    first_images: int,
    progress: Progress,
    teacher: OpenTeacher,
) -> Measured | None:
    """Call every runner on all images, once.

    A torch reference gets the images as timm prepares them, the others as the device does: what is lost on
    the way from image to logits is lost in the accuracy. Where the two differ the reference is called with
    the device's input as well, so that models are compared on the very same one.

    Args:
        contest: the runners.
        lots: the images.
        bundle: for the names of input and output, and the golden images.
        std: of the student's normalisation.
        first_images: inputs to keep for other batch sizes, rounded up to whole lots.
        progress: told of every image and runner.
        teacher: called once for each image as well, where it is open.

    Returns:
        None where there are no images.
    """
    names = {"input_name": bundle.spec.input_name, "output_name": bundle.spec.output_name}
    golden = GoldenImages(bundle.golden())
    labels: list[NDArray[np.int64]] = []
    logits: dict[str, list[NDArray[Any]]] = {one.name: [] for one in contest.all}
    same_input: list[NDArray[Any]] = []
    of_teacher: list[NDArray[Any]] = []
    first: list[Array] = []
    preprocess: list[PreprocessParity] = []
    unlike: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    for lot in lots:
        labels.append(lot.labels)
        preprocess.append(compare_inputs(lot.of_timm, lot.of_device, std))
        golden.find(lot.sha256, lot.labels, lot.device_input)
        if len(first) * BATCH < first_images:
            first.append(lot.device_input)
        if lot.differs.any() and sum(len(pair[0]) for pair in unlike) < _KEPT:
            which = np.flatnonzero(lot.differs)[:_KEPT]
            unlike.append((lot.of_timm[which], lot.of_device[which]))
        for one in contest.candidates:
            logits[one.name].append(logits_of(one.runner, lot.device_input, batch=BATCH, **names))
        whole, on_device = _reference_logits(contest.reference, lot, names)
        logits[contest.reference.name].append(whole)
        same_input.append(on_device)
        if teacher.runner is not None and lot.teacher_input is not None:
            of_teacher.append(logits_of(teacher.runner, lot.teacher_input, batch=BATCH))
        progress.advance(len(lot.labels))
    if not labels:
        return None
    of_all = {name: np.concatenate(parts) for name, parts in logits.items()}
    differs = any(a is not b for a, b in zip(logits[contest.reference.name], same_input, strict=True))
    parity = join_inputs(preprocess)
    return Measured(
        labels=np.concatenate(labels),
        logits=of_all,
        same_input=np.concatenate(same_input) if differs else of_all[contest.reference.name],
        first_inputs=np.concatenate(first),
        preprocess=parity,
        differing_pixels=parity.differing_pixels,
        unlike=_joined(unlike),
        golden=golden.golden,
        golden_found=len(golden.labels),
        golden_unlike=golden.unlike(),
        teacher=np.concatenate(of_teacher) if of_teacher else None,
    )


def _reference_logits(reference: Contestant, lot: Lot, names: dict[str, str]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The reference's logits of its own input, and of the device's; one array where the inputs are equal."""
    if reference.kind != "torch":
        of_device = logits_of(reference.runner, lot.device_input, batch=BATCH, **names)
        return of_device, of_device
    of_timm = logits_of(reference.runner, lot.timm_input, batch=BATCH, **names)
    if not lot.differs.any():
        return of_timm, of_timm
    of_device = of_timm.copy()
    of_device[lot.differs] = logits_of(reference.runner, lot.device_input[lot.differs], batch=BATCH, **names)
    return of_timm, of_device


def _joined(
    pairs: list[tuple[NDArray[np.float32], NDArray[np.float32]]],
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    return (np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])) if pairs else None


def _count(images: ImageSet | StreamSet, limit: int | None) -> int:
    """Images to come; 0 for a stream that does not tell."""
    there = images.length if isinstance(images, StreamSet) else len(images)
    return min(there, limit) if there is not None and limit is not None else there or limit or 0
