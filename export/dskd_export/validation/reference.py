"""What is taken to be right in a validation.

`dskd_compress` derives a reference with torch. Without torch there are two: fp32 in ONNX Runtime on the CPU, which
has to reproduce torch's golden logits in the bundle, and, where there are no labelled images, these logits.

Shape suffixes: B or N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from dskd_export.bundle import Bundle
from dskd_export.documents.validation import Check, PreprocessParity
from dskd_export.runtime.runner import Array
from dskd_export.settings import ValidateSettings
from dskd_export.validation.batches import GOLDEN, ValidationBatch
from dskd_export.validation.causes import explain_labels, explain_logits
from dskd_export.validation.checks import IS_REFERENCE, check_count, check_golden, check_golden_images
from dskd_export.validation.judgement import NO_TEACHER_IN_BUNDLE, Measured, TeacherOutputs, golden_parity
from dskd_export.validation.models import LoadedModel

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

    def observe(self, batch: BatchT) -> NDArray[Any] | None:
        """Take note of images that are compared, each once; returns the teacher's logits, None without one."""
        return None

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

    def select_measured(self, candidate: LoadedModel, measured: Measured) -> tuple[str, Measured]:
        """Select what a candidate is compared with: the name in documents, and the outputs.

        The reference itself, where it is a candidate too, is compared with the golden logits.
        """
        if candidate is not self.model:
            return self.name, measured
        golden = measured.golden.golden
        logits = {str(candidate.name): candidate.logits(golden.input)}
        own = replace(measured, labels=None, logits=logits, first_inputs=golden.input, no_labels=IS_REFERENCE)
        return GOLDEN, replace(own, same_input=golden.logits)


@dataclass(frozen=True)
class GoldenReference(Reference[ValidationBatch]):
    """Torch's logits of the golden images, where there are no other images."""

    @property
    def name(self) -> str:
        """The file that holds them."""
        return GOLDEN

    def select_measured(self, candidate: LoadedModel, measured: Measured) -> tuple[str, Measured]:
        """See `Reference`: every model is compared with the golden logits."""
        return GOLDEN, replace(measured, same_input=measured.golden.golden.logits)


def check_images(measured: Measured, reference: str) -> tuple[list[Check], list[str]]:
    """Check the golden images and the labels among the images; returns the checks and a cause."""
    assert measured.labels is not None
    shifted = explain_labels(measured.logits[reference], measured.labels)
    causes = [shifted] if shifted else []
    labels = check_count("labels", causes, "no shift of the classes fits better")
    return [check_golden_images(measured.golden), labels], causes


def find_differing(one_B: Array, other_B: Array) -> NDArray[np.bool_]:
    """Find the images [B] whose two inputs are not bit-identical."""
    if one_B is other_B:
        return np.zeros(len(one_B), np.bool_)
    return np.array([not np.array_equal(one, other) for one, other in zip(one_B, other_B, strict=True)])
