"""Validate the models of a bundle against a reference: one flow for a run folder and for a device.

    open models -> measure on every image, once -> check the bundle, judge the models and the student -> verdict

Shape suffixes: B or N images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_export.bundle import Bundle
from dskd_export.bundle.golden import Golden
from dskd_export.documents.base import DataFacts, Provenance
from dskd_export.documents.validation import Judgement, ValidationDocument
from dskd_export.errors import DataError
from dskd_export.runtime.images import name_unreadable
from dskd_export.runtime.labelled_images import LabelledImages
from dskd_export.runtime.orientation import count_turned, is_notable
from dskd_export.runtime.runner import Array
from dskd_export.settings import BudgetSettings, ValidateSettings
from dskd_export.telemetry.host import device_name
from dskd_export.validation.accuracy import accuracy_of
from dskd_export.validation.batches import (
    ValidationBatch,
    describe_golden,
    iter_golden_batches,
    iter_labelled_batches,
    prefetch,
)
from dskd_export.validation.judgement import Measured, add_teacher_drop, judge_model, judge_student
from dskd_export.validation.mistakes import MistakeSearch, find_mistakes
from dskd_export.validation.models import BATCH, Models, open_models
from dskd_export.validation.parity import GoldenSearch
from dskd_export.validation.reference import BatchT, GoldenReference, Reference, find_differing
from dskd_export.validation.verdicts import conclude


def validate(
    bundle: Bundle,
    models: Models,
    reference: Reference[BatchT],
    batches: Iterator[BatchT],
    settings: ValidateSettings,
    budget: BudgetSettings,
    *,
    facts: Callable[[], DataFacts],
    provenance: Callable[..., Provenance],
    on_images: Callable[[int], object],
    warn: Callable[[str], object],
) -> ValidationDocument:
    """Validate a bundle; nothing is written. The caller judges `passed`.

    One pass over the images feeds all models. Images are read once and dropped, so the memory grows with their
    number only by one row of logits for each model.

    Args:
        bundle: the models' files.
        models: open.
        reference: what is taken to be right.
        batches: the images; read ahead in another thread.
        settings: limits of fp32, batch sizes, and whether a pair is compared.
        budget: of the student and of the smaller precisions.
        facts: called after the last image, for the images used and those left out.
        provenance: called at the end with the keyword `device`.
        on_images: called with the number of images that are done.
        warn: called with the names of images that cannot be read.

    Raises:
        DataError: there are no images, or too many of them cannot be read.
    """
    search = None if settings.pair is not None else MistakeSearch(bundle.spec, photos=settings.photos)
    first = max(settings.batches)
    measured = measure(models, reference, prefetch(batches), bundle.golden(), first, on_images, search)
    data = facts()
    if measured is None:
        raise DataError(
            f"{data.source} gave no images.", "Check data.val_split of a run, or --images of a bundle."
        )
    if data.skipped:
        warn(name_unreadable(data.skipped))
    checks, causes = reference.check(measured)
    judgements: list[Judgement] = []
    device = device_name()
    for candidate in models.candidates:
        name, outputs = reference.select_measured(candidate, measured)
        limits = budget.of(candidate.name.precision, device)
        judgements.append(judge_model(candidate, name, outputs, bundle, settings, limits, judgements))
    judgements += models.not_run
    student = None
    if settings.pair is None:
        own_NK = None if measured.labels is None else measured.logits[reference.model.name]
        teacher = reference.teacher
        student = judge_student(own_NK, measured.labels, reference.classes, teacher, budget.student_drop)
        judgements = [add_teacher_drop(one, measured, teacher) for one in judgements]
    verdict, reason = conclude(student, checks, judgements)
    on_gpu = any(model.name.provider != "cpu" for model in models.distinct)
    labels = measured.labels
    mistakes = None
    if search is not None and labels is not None:
        own = reference.model.name
        answers_NK, of_teacher_NK = measured.logits[own], reference.teacher.logits
        mistakes = find_mistakes(search, own, answers_NK, of_teacher_NK, labels, reference.classes)
    return ValidationDocument(
        verdict=verdict,
        reason=reason,
        student=student,
        target=bundle.manifest.provenance.target,
        speed_limits=[f"budget.{key}" for key in budget.speed().limits],
        reference=reference.name,
        accuracy={}
        if labels is None
        else {name: accuracy_of(logits_NK, labels) for name, logits_NK in measured.logits.items()},
        judgements=judgements,
        preprocess=reference.preprocess,
        checks=checks,
        causes=causes,
        passed=verdict == "PASS",
        mistakes=mistakes,
        data=data,
        bundle_sha256=bundle.sha256,
        provenance=provenance(device="cuda:0" if on_gpu else "cpu"),
    )


def validate_bundle(
    bundle: Bundle,
    engines: Path,
    settings: ValidateSettings,
    budget: BudgetSettings,
    images: LabelledImages | None,
    max_unreadable: float,
    *,
    provenance: Callable[..., Provenance],
    on_images: Callable[[int], object],
    warn: Callable[[str], object],
) -> ValidationDocument:
    """Validate a bundle without torch; nothing is written. The caller judges `passed`.

    Args:
        bundle: the models' files.
        engines: folder of the bundle's engines.
        settings: what is validated, and the limits of fp32.
        budget: of the student and of the smaller precisions.
        images: with labels; None: the golden images alone, and no accuracy.
        max_unreadable: share of the images that need not be readable.
        provenance: see `validate`, as `on_images` and `warn`.

    Raises what `open_models` and `validate` do.
    """
    skipped: list[str] = []
    ignored: list[str] = []
    with ExitStack() as stack:
        models = open_models(bundle, engines, settings, stack)
        alone = images is None and settings.pair is None
        reference = (GoldenReference if alone else Reference[ValidationBatch])(models.reference, bundle, settings)
        document = validate(
            bundle,
            models,
            reference,
            iter_golden_batches(bundle.golden())
            if images is None
            else iter_labelled_batches(images, bundle, skipped, max_unreadable, ignored),
            settings,
            budget,
            facts=lambda: describe_golden(bundle) if images is None else images.facts(skipped),
            provenance=provenance,
            on_images=on_images,
            warn=warn,
        )
    if images is not None and is_notable(len(ignored), len(images.files)):
        warn(
            f"{count_turned(len(ignored), len(images.files))} that this bundle "
            "ignores, as its training did. To have them turned upright, train with: --set data.exif=apply"
        )
    return document


def measure(
    models: Models,
    reference: Reference[BatchT],
    batches: Iterator[BatchT],
    golden: Golden,
    first_images: int,
    on_images: Callable[[int], object],
    mistakes: MistakeSearch | None = None,
) -> Measured | None:
    """Call every model on all images, once.

    The reference gets its own inputs, the others the device's: accuracy lost between image and logits counts.
    Where the two inputs differ the reference is called with the device's as well, so that models are compared on
    the very same one.

    Args:
        models: to call.
        reference: that prepares its own inputs.
        batches: the images.
        golden: images to look for.
        first_images: inputs to keep for other batch sizes, rounded up to whole batches; all of golden inputs.
        on_images: called with the number of images that are done.
        mistakes: sees the student's and the teacher's answers as well; None: nobody looks for mistakes.

    Returns:
        None where there are no images.
    """
    seen = GoldenSearch(golden)
    labels: list[NDArray[np.int64]] = []
    logits: dict[str, list[NDArray[Any]]] = {model.name: [] for model in models.distinct}
    same_input: list[NDArray[Any]] = []
    first: list[Array] = []
    differ = False
    for batch in batches:
        if batch.labels is not None:
            labels.append(batch.labels)
            seen.find(batch.sha256, batch.labels, batch.inputs)
        if batch.labels is None or len(first) * BATCH < first_images:
            first.append(batch.inputs)
        for model in models.distinct[1:]:
            logits[model.name].append(model.logits(batch.inputs))
        own = reference.inputs(batch)
        logits[reference.model.name].append(reference.model.logits(own))
        same_input.append(logits[reference.model.name][-1])
        differs_B = find_differing(own, batch.inputs)
        if differs_B.any():
            differ = True
            same_input[-1] = same_input[-1].copy()
            same_input[-1][differs_B] = reference.model.logits(batch.inputs[differs_B])
        teacher_BK = reference.observe(batch)
        if mistakes is not None and batch.labels is not None:
            own_BK = logits[reference.model.name][-1]
            mistakes.observe(batch.inputs, batch.names, batch.labels, own_BK, teacher_BK)
        on_images(len(batch.inputs))
    if not first:
        return None
    of_all = {name: np.concatenate(parts) for name, parts in logits.items()}
    return Measured(
        labels=np.concatenate(labels) if labels else None,
        logits=of_all,
        same_input=np.concatenate(same_input) if differ else of_all[reference.model.name],
        first_inputs=np.concatenate(first),
        golden=seen,
        differing_pixels=0 if reference.preprocess is None else reference.preprocess.differing_pixels,
    )
