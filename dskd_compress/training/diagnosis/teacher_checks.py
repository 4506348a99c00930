"""Checks of the teacher in a running distillation, from what the diagnosis keeps of its batches.

Shape suffixes: B and N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dskd_compress.methods.base import Teacher
from dskd_compress.models import TeacherInput
from dskd_compress.training.diagnosis.classes import class_order_symptom
from dskd_compress.training.diagnosis.paired import LEAST_IMAGES, Right
from dskd_compress.training.diagnosis.symptom import Symptom
from dskd_compress.training.diagnosis.teacher import (
    changed_symptom,
    checksum,
    find_difference,
    frozen_symptom,
    mode_symptom,
)
from dskd_compress.training.diagnosis.teacher_input import (
    Formats,
    accuracy_symptom,
    adapter_symptom,
    find_right_answers,
    measure_outside_pixels,
    pixels_symptom,
)
from dskd_export.documents.training import TeacherFacts


@dataclass
class CheckedBatch:
    """What the diagnosis keeps of a step that is checked."""

    images_BCHW: Tensor
    labels_B: Tensor
    logits_BK: Tensor | None
    values: dict[str, float]
    norms: dict[str, float | None]
    monitors: dict[str, float]


ANSWER_STEPS = 100  # steps over which the teacher's answers are collected, to find its class order


class TeacherChecks:
    """Checks the state, the input and the class order of a teacher.

    Args:
        formats: normalisations of student and teacher; None skips the checks of the input.
        known_accuracy: the teacher's, after its own training; None where it is unknown.
        outputs: the teacher's own classes behind each of its outputs; None: they have no names.
        as_option: a class map of the teacher -> the option that sets it.
    """

    def __init__(
        self,
        teacher: Teacher,
        formats: Formats | None,
        classes: Sequence[str],
        known_accuracy: float | None,
        outputs: Sequence[Sequence[str]] | None,
        as_option: Callable[[Mapping[str, str]], str],
    ) -> None:
        self.teacher = teacher
        self.formats, self.classes, self.known_accuracy = formats, classes, known_accuracy
        self.outputs, self.as_option = outputs, as_option
        self._checksum = checksum(teacher.model)
        self._answers: list[tuple[Tensor, Tensor, Tensor]] | None = []  # labels, first class, its probability
        self._tried: list[tuple[Right, dict[str, Right]]] | None = []

    def collect(self, labels_B: Tensor, logits_BK: Tensor) -> None:
        """Keep the teacher's answers for a batch, until there are enough."""
        if self._answers is not None:
            confidence_B, first_B = logits_BK.softmax(dim=1).max(dim=1)
            self._answers.append((labels_B, first_B, confidence_B))

    def check(
        self, batch: CheckedBatch, logits_BK: Tensor, optimizer: torch.optim.Optimizer | None
    ) -> tuple[TeacherFacts, list[Symptom | None]]:
        """Check the teacher on a batch: its mode, weights, class order and input."""
        model = self.teacher.model
        symptoms = [mode_symptom(model), frozen_symptom(model, optimizer)]
        in_eval_mode = symptoms[0] is None
        changed = find_difference(model, self._checksum, checksum(model))
        if changed is not None:
            symptoms.append(changed_symptom(changed, "since the training began"))
        given_BCHW = self.teacher.adapt(batch.images_BCHW).float()
        right_B = logits_BK.argmax(dim=1) == batch.labels_B
        facts = TeacherFacts(
            accuracy=float(right_B.float().mean()),
            confidence=float(logits_BK.softmax(dim=1).max(dim=1).values.mean()),
            input_mean=float(given_BCHW.mean()),
            input_std=float(given_BCHW.std()),
        )
        order = self._check_class_order()
        symptoms.append(order)
        if order is not None:
            self._tried = None  # every other explanation of the same answers would mislead
        if in_eval_mode and self.formats is not None and self._tried is not None:
            size, images_BCHW = self.teacher.adapt.size, batch.images_BCHW
            others = find_right_answers(model, images_BCHW, batch.labels_B, self.formats, size)
            self._tried.append((right_B.cpu().numpy(), others))
            symptoms += self._check_input(images_BCHW, given_BCHW, facts, self.formats, self._tried)
        return facts, symptoms

    def _check_class_order(self) -> Symptom | None:
        if not self._answers:
            return None
        labels_N, first_N, confidence_N = (torch.cat(parts) for parts in zip(*self._answers, strict=True))
        if len(self._answers) >= ANSWER_STEPS:
            self._answers = None
        return class_order_symptom(
            labels_N.cpu().numpy(),
            first_N.cpu().numpy(),
            float(confidence_N.mean()),
            self.classes,
            self.outputs,
            self.as_option,
        )

    def _check_input(
        self,
        images_BCHW: Tensor,
        given_BCHW: Tensor,
        facts: TeacherFacts,
        formats: Formats,
        tried: list[tuple[Right, dict[str, Right]]],
    ) -> list[Symptom | None]:
        """Compare with other normalisations at the first checks, until there are enough images for a verdict."""
        adapt = TeacherInput(formats.student, formats.teacher, self.teacher.adapt.size)
        wanted_BCHW = adapt.to(images_BCHW.device)(images_BCHW)
        symptoms = [
            pixels_symptom(measure_outside_pixels(images_BCHW, formats.student)),
            adapter_symptom(given_BCHW, wanted_BCHW.float()),
        ]
        given_N = np.concatenate([given for given, _ in tried])
        if len(given_N) >= LEAST_IMAGES:
            others = {name: np.concatenate([other[name] for _, other in tried]) for name in tried[0][1]}
            self._tried = None
            statistics = (facts.input_mean, facts.input_std)
            symptoms.append(accuracy_symptom(given_N, others, statistics, self.known_accuracy))
        return symptoms
