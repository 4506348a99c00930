"""Validate the models of a bundle against a reference: one flow for a run folder and for a device.

    open models -> measure on every image, once -> check the bundle, judge the models and the student -> verdict

What is taken to be right is plugged in as a `Reference`. `dskd_compress` derives one with torch; without torch
there are two. Torch's golden logits in the bundle, of a few real images, have to be reproduced by ONNX Runtime in
fp32 on the CPU. It then is the reference on labelled images; where there are none, the golden logits are.

Shape suffixes: B or N images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from dskd_export.bundle import Bundle
from dskd_export.bundle.golden import Golden
from dskd_export.documents.base import DataFacts, Provenance
from dskd_export.documents.validation import Check, Judgement, PreprocessParity, ValidationDocument
from dskd_export.errors import DataError
from dskd_export.runtime.images import name_unreadable, pixel_sha256
from dskd_export.runtime.labelled_images import LabelledImages
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.runtime.runner import Array
from dskd_export.settings import BudgetSettings, ValidateSettings
from dskd_export.telemetry.host import device_name
from dskd_export.validation.accuracy import accuracy_of
from dskd_export.validation.candidates import BATCH, LoadedModel, Models, open_models
from dskd_export.validation.causes import explain_labels, explain_logits
from dskd_export.validation.gate import IS_REFERENCE, check_count, check_golden, check_golden_images
from dskd_export.validation.judgement import (
    GOLDEN,
    NO_TEACHER_IN_BUNDLE,
    Measured,
    TeacherOutputs,
    golden_parity,
    judge_model,
    judge_student,
)
from dskd_export.validation.parity import GoldenSearch
from dskd_export.validation.verdicts import conclude

Item = TypeVar("Item")


@dataclass(frozen=True)
class ValidationBatch:
    """Some images of a validation.

    Attributes:
        labels: int64 [B]; None: golden inputs, whose accuracy says nothing.
        inputs: as the device feeds them to a model.
        sha256: of each image's pixels, as the golden images are named.
    """

    labels: NDArray[np.int64] | None
    inputs: Array
    sha256: tuple[str, ...]


BatchT = TypeVar("BatchT", bound=ValidationBatch)


@dataclass(frozen=True)
class Reference(Generic[BatchT]):
    """What is taken to be right: as it stands, a model that runs on the device, such as fp32 in ONNX Runtime.

    Attributes:
        model: called for every image.
        bundle: that is validated.
        settings: the limit of its golden logits.
    """

    model: LoadedModel
    bundle: Bundle
    settings: ValidateSettings

    @property
    def name(self) -> str:
        """In documents: its runner, or golden.npz."""
        return self.model.name

    @property
    def classes(self) -> Sequence[str]:
        """Names of the outputs."""
        return self.bundle.spec.classes

    @property
    def preprocess(self) -> PreprocessParity | None:
        """The device's inputs against its own; None: it has no others."""
        return None

    @property
    def teacher(self) -> TeacherOutputs:
        """The teacher's answers on the images seen."""
        return TeacherOutputs(None, NO_TEACHER_IN_BUNDLE)

    def inputs(self, batch: BatchT) -> Array:
        """Its own input of some images."""
        return batch.inputs

    def observe(self, batch: BatchT) -> None:
        """Take note of images that are compared; each comes once."""

    def check(self, measured: Measured) -> tuple[list[Check], list[str]]:
        """Check the bundle itself; returns the checks and the likely causes of failures."""
        golden = measured.golden.golden
        check = check_golden(golden_parity(self.model, golden), self.settings.max_abs_relative)
        causes = []
        if check.failed:
            known = explain_logits(golden.logits, self.model.logits(golden.input))
            what = f"{self.model.name} does not give here what torch gave for the golden images"
            causes.append(f"{what}: {known}" if known else what)
        if measured.labels is None:
            return [check], causes
        checks, shifted = check_images(measured, self.model.name)
        return [check, *checks], causes + shifted

    def measured_for(self, candidate: LoadedModel, measured: Measured) -> tuple[str, Measured]:
        """Select what a candidate is compared with: the name in documents, and the outputs.

        The reference itself, where it is a candidate too, is compared with the golden logits.
        """
        if candidate is not self.model:
            return self.name, measured
        golden = measured.golden.golden
        logits = {candidate.name: candidate.logits(golden.input)}
        own = replace(measured, labels=None, logits=logits, first_inputs=golden.input, no_labels=IS_REFERENCE)
        return GOLDEN, replace(own, same_input=golden.logits)


@dataclass(frozen=True)
class GoldenReference(Reference[ValidationBatch]):
    """Torch's logits of the golden images, where there are no other images."""

    @property
    def name(self) -> str:
        """The file that holds them."""
        return GOLDEN

    def measured_for(self, candidate: LoadedModel, measured: Measured) -> tuple[str, Measured]:
        """See `Reference`: every model is compared with the golden logits."""
        return GOLDEN, replace(measured, same_input=measured.golden.golden.logits)


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
    measured = measure(models, reference, prefetch(batches), bundle.golden(), max(settings.batches), on_images)
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
        name, outputs = reference.measured_for(candidate, measured)
        limits = budget.of(candidate.precision, device)
        judgements.append(judge_model(candidate, name, outputs, bundle, settings, limits, judgements))
    judgements += models.not_run
    student = None
    if settings.pair is None:
        own_NK = None if measured.labels is None else measured.logits[reference.model.name]
        student = judge_student(own_NK, measured.labels, reference.classes, reference.teacher, budget.student_drop)
    verdict, reason = conclude(student, checks, judgements)
    on_gpu = any(model.provider != "cpu" for model in models.distinct)
    labels = measured.labels
    return ValidationDocument(
        verdict=verdict,
        reason=reason,
        student=student,
        reference=reference.name,
        accuracy={}
        if labels is None
        else {name: accuracy_of(logits_NK, labels) for name, logits_NK in measured.logits.items()},
        judgements=judgements,
        preprocess=reference.preprocess,
        checks=checks,
        causes=causes,
        passed=verdict == "PASS",
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
    with ExitStack() as stack:
        models = open_models(bundle, engines, settings, stack)
        alone = images is None and settings.pair is None
        reference = (GoldenReference if alone else Reference[ValidationBatch])(models.reference, bundle, settings)
        return validate(
            bundle,
            models,
            reference,
            golden_batches(bundle.golden())
            if images is None
            else labelled_batches(images, bundle, skipped, max_unreadable),
            settings,
            budget,
            facts=lambda: golden_facts(bundle) if images is None else images.facts(skipped),
            provenance=provenance,
            on_images=on_images,
            warn=warn,
        )


def measure(
    models: Models,
    reference: Reference[BatchT],
    batches: Iterator[BatchT],
    golden: Golden,
    first_images: int,
    on_images: Callable[[int], object],
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
        differs_B = differing(own, batch.inputs)
        if differs_B.any():
            differ = True
            same_input[-1] = same_input[-1].copy()
            same_input[-1][differs_B] = reference.model.logits(batch.inputs[differs_B])
        reference.observe(batch)
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


def differing(one_B: Array, other_B: Array) -> NDArray[np.bool_]:
    """Find the images [B] whose two inputs are not bit-identical."""
    if one_B is other_B:
        return np.zeros(len(one_B), np.bool_)
    return np.array([not np.array_equal(one, other) for one, other in zip(one_B, other_B, strict=True)])


def check_images(measured: Measured, reference: str) -> tuple[list[Check], list[str]]:
    """Check the golden images and the labels among the images; returns the checks and a cause."""
    assert measured.labels is not None
    shifted = explain_labels(measured.logits[reference], measured.labels)
    causes = [shifted] if shifted else []
    labels = check_count("labels", causes, "no shift of the classes fits better")
    return [check_golden_images(measured.golden), labels], causes


def prefetch(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the same items while another thread prepares the next one; at most two are held at a time."""
    end = object()
    step: Callable[[], object] = lambda: next(items, end)  # noqa: E731
    with ThreadPoolExecutor(1, thread_name_prefix="images") as pool:
        coming = pool.submit(step)
        while (item := coming.result()) is not end:
            coming = pool.submit(step)
            yield item  # type: ignore[misc]


def labelled_batches(
    images: LabelledImages, bundle: Bundle, skipped: list[str], max_unreadable: float
) -> Iterator[ValidationBatch]:
    """Prepare labelled images as the device does, `BATCH` at a time.

    Args:
        images: of a folder.
        bundle: whose spec prepares them.
        skipped: gets the names of images that cannot be read.
        max_unreadable: share of them that is tolerated.

    Raises:
        DataError: more cannot be read.
    """
    decoded = images.read(skipped, max_unreadable)
    while chunk := list(islice(decoded, BATCH)):
        yield ValidationBatch(
            labels=np.array([label for _, label in chunk], np.int64),
            inputs=preprocess_batch([image for image, _ in chunk], bundle.spec),
            sha256=tuple(pixel_sha256(image) for image, _ in chunk),
        )


def golden_batches(golden: Golden) -> Iterator[ValidationBatch]:
    """The golden inputs of a bundle, where there are no images."""
    for start in range(0, len(golden.input), BATCH):
        names = golden.image_sha256[start : start + BATCH]
        yield ValidationBatch(None, golden.input[start : start + BATCH], tuple(map(str, names)))


def golden_facts(bundle: Bundle) -> DataFacts:
    """Describe the golden images as the data of a validation."""
    return DataFacts(
        source=f"{GOLDEN} of the bundle",
        sha256=bundle.manifest.files[GOLDEN].sha256,
        sha256_of="content",
        train_images=None,
        val_images=len(bundle.golden().labels),
        classes=list(bundle.spec.classes),
    )
