"""The watch over a running distillation: it looks, and leaves the training's bits as they are.

A hook on the task sees each batch with its losses while their graph is there; `after_backward`, which the
loop calls in each step, judges. Nothing is drawn from a random generator and no `.grad` is touched, so the
student is the same with and without it. A close look is taken at steps 1, 2, 3 then every so many, and at
the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dskd_compress.config import DiagnosisSection
from dskd_compress.label_space import class_map_override
from dskd_compress.methods.base import MethodTask
from dskd_compress.models import TeacherInput
from dskd_compress.training.diagnosis.classes import class_order_symptom
from dskd_compress.training.diagnosis.gradients import TermGradients
from dskd_compress.training.diagnosis.optimizer import not_optimized_symptom
from dskd_compress.training.diagnosis.paired import LEAST_IMAGES, Right
from dskd_compress.training.diagnosis.symptom import Symptom
from dskd_compress.training.diagnosis.target import collapsed_symptom
from dskd_compress.training.diagnosis.teacher import (
    changed_symptom,
    checksum,
    first_difference,
    frozen_symptom,
    mode_symptom,
)
from dskd_compress.training.diagnosis.teacher_input import (
    Formats,
    accuracy_symptom,
    adapter_symptom,
    pixels_outside,
    pixels_symptom,
    right_answers,
)
from dskd_compress.training.diagnosis.terms import Look, dead_symptoms, exploding_symptoms, unreached_symptoms
from dskd_export.documents.training import DiagnosisRecord, Finding, TeacherFacts
from dskd_export.errors import DiagnosisError

FIRST_STEPS = 3
ANSWER_STEPS = 100  # steps over which the teacher's answers are collected, to learn its class order


@dataclass
class Batch:
    """What the hook kept of a step that is looked at."""

    images_BCHW: Tensor
    labels_B: Tensor
    logits_BK: Tensor | None
    values: dict[str, float]
    norms: dict[str, float | None]
    monitors: dict[str, float]


class Diagnosis:
    """Looks for faults of one distillation.

    Args:
        section: how often, and which faults end the training.
        task: student, method and teacher.
        formats: normalisations of student and teacher; None where there is no teacher.
        classes: names of the data's classes.
        known_accuracy: the teacher's, after its own training; None where nobody knows.
        outputs: the teacher's own classes behind each of its outputs; None: they have no names.
        as_option: a class map of the teacher -> the option that sets it.
        seen_before: a fault that was found before the training.
    """

    def __init__(
        self,
        section: DiagnosisSection,
        task: MethodTask,
        *,
        formats: Formats | None,
        classes: Sequence[str],
        known_accuracy: float | None = None,
        outputs: Sequence[Sequence[str]] | None = None,
        as_option: Callable[[Mapping[str, str]], str] = class_map_override,
        seen_before: Symptom | None = None,
    ) -> None:
        self.section, self.task = section, task
        self.formats, self.classes, self.known_accuracy = formats, classes, known_accuracy
        self.outputs, self.as_option, self.seen_before = outputs, as_option, seen_before
        self.findings: list[Finding] = []
        self._records: list[DiagnosisRecord] = []
        self._gradients = TermGradients(task)
        self._looks: list[Look] = []
        self._monitors: list[tuple[int, dict[str, float]]] = []
        self._answers: list[tuple[Tensor, Tensor, Tensor]] | None = []  # labels, first class, its probability
        self._right: list[tuple[Right, dict[str, Right]]] | None = []
        self._step = 1
        self._last: int | None = None
        self._batch: Batch | None = None
        self._hooks: list[Any] = []
        self._optimizer: torch.optim.Optimizer | None = None
        self._scale: Callable[[], float] = lambda: 1.0
        self._checksum: Tensor | None = None

    @property
    def teacher(self) -> nn.Module | None:
        """The frozen model inside the task's teacher."""
        return None if self.task.teacher is None else self.task.teacher.model

    def begin(
        self,
        step: int,
        optimizer: torch.optim.Optimizer,
        *,
        scale: Callable[[], float] = lambda: 1.0,
        last: int | None = None,
        earlier: Iterable[DiagnosisRecord] = (),
    ) -> None:
        """Look at what can be seen before the first step, and watch from there on.

        Args:
            step: updates that are done already.
            optimizer: of the trainable module.
            scale: factor of the loss in half precision.
            last: number of the last step, 1-based, at which a short training is judged; None: nobody knows.
            earlier: records of the same training before it was interrupted.

        Raises:
            DiagnosisError: a fault that `stop_on` names.
        """
        for record in earlier:
            # One that ended the training is found anew, unless it was mended.
            self.findings += [finding for finding in record.findings if finding.severity == "warning"]
        self._step, self._last, self._optimizer, self._scale = step + 1, last, optimizer, scale
        if self.teacher is not None:
            self._checksum = checksum(self.teacher)
        self._hooks = [
            self.task.register_forward_pre_hook(self._ask_for_monitors),
            self.task.register_forward_hook(self._see),
        ]
        found = self._new(
            [
                self.seen_before,
                not_optimized_symptom(self.task.module, optimizer),
                None if self.teacher is None else frozen_symptom(self.teacher, optimizer),
            ],
            step,
        )
        if found:
            self._records.append(
                DiagnosisRecord(
                    step=step, epoch=0, gradient_norms={}, gradient_at={}, teacher=None, findings=found
                )
            )
            self._stop_if_asked(found)

    def close(self) -> None:
        """Watch no longer."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def take(self) -> list[DiagnosisRecord]:
        """Records since the last call."""
        records, self._records = self._records, []
        return records

    def _is_due(self) -> bool:
        return self._step <= FIRST_STEPS or self._step % self.section.every_steps == 0 or self._step == self._last

    # --- while the graph of a step is there

    def _ask_for_monitors(self, task: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Costly monitors are left out of most steps, but not of one that is looked at."""
        if self._is_due():
            self.task.module.watching = True

    def _see(self, task: nn.Module, inputs: tuple[Any, ...], result: dict[str, Any]) -> None:
        """Keep what is needed of a batch; the first piece stands for a step that has several."""
        images_BCHW, target = inputs
        labels_B = target if target.ndim == 1 else target.argmax(dim=1)
        teacher = result.get("teacher")
        logits_BK = None if teacher is None else teacher.logits_BK.detach()
        if logits_BK is not None and self._answers is not None:
            confidence_B, first_B = logits_BK.softmax(dim=1).max(dim=1)
            self._answers.append((labels_B, first_B, confidence_B))
        if not self._is_due() or self._batch is not None:
            return
        self._batch = Batch(
            images_BCHW,
            labels_B,
            logits_BK,
            {name: float(term.detach()) for name, term in result["terms"].items()},
            self._gradients.measure(result["terms"], self._scale()),
            {name: float(value) for name, value in result["monitors"].items()},
        )

    # --- once a step

    def after_backward(self, step: int, task: MethodTask) -> None:
        """Judge the step, where it is one to look at.

        Args:
            step: its number, 0-based.
            task: the one that is watched.

        Raises:
            DiagnosisError: a fault that `stop_on` names.
        """
        batch, self._batch = self._batch, None
        number, self._step = step + 1, step + 2
        if batch is None:
            return
        self._looks.append(Look(number, batch.values, batch.norms))
        self._monitors.append((number, batch.monitors))
        facts, symptoms = self._look_at_teacher(batch)
        symptoms += unreached_symptoms(list(batch.values), self._gradients.reaching, self.task.module.head_terms)
        symptoms += dead_symptoms(self._looks)
        symptoms += exploding_symptoms(self._looks)
        symptoms.append(collapsed_symptom(self._monitors))
        if self._optimizer is not None:
            symptoms.append(not_optimized_symptom(task.module, self._optimizer))
        found = self._new(symptoms, number)
        self._records.append(
            DiagnosisRecord(
                step=number,
                epoch=0 if task.position is None else task.position[0],
                gradient_norms={
                    k: v if v is not None and np.isfinite(v) else None for k, v in batch.norms.items()
                },
                gradient_at=self._gradients.place,
                teacher=facts,
                findings=found,
            )
        )
        self._stop_if_asked(found)

    def _look_at_teacher(self, batch: Batch) -> tuple[TeacherFacts | None, list[Symptom | None]]:
        if self.task.teacher is None or self.teacher is None or batch.logits_BK is None:
            return None, []
        symptoms = [mode_symptom(self.teacher), frozen_symptom(self.teacher, self._optimizer)]
        steady = symptoms[0] is None
        if self._checksum is not None:
            changed = first_difference(self.teacher, self._checksum, checksum(self.teacher))
            if changed is not None:
                symptoms.append(changed_symptom(changed, "since the training began"))
        given_BCHW = self.task.teacher.adapt(batch.images_BCHW).float()
        right_B = batch.logits_BK.argmax(dim=1) == batch.labels_B
        facts = TeacherFacts(
            accuracy=float(right_B.float().mean()),
            confidence=float(batch.logits_BK.softmax(dim=1).max(dim=1).values.mean()),
            input_mean=float(given_BCHW.mean()),
            input_std=float(given_BCHW.std()),
        )
        order = self._class_order()
        symptoms.append(order)
        if order is not None:
            self._right = None  # every other reading of the same answers would mislead
        if steady and self.formats is not None and self._right is not None:
            symptoms += self._look_at_input(batch, given_BCHW, right_B.cpu().numpy(), facts, self.formats)
        return facts, symptoms

    def _class_order(self) -> Symptom | None:
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

    def _look_at_input(
        self, batch: Batch, given_BCHW: Tensor, right_B: Right, facts: TeacherFacts, formats: Formats
    ) -> list[Symptom | None]:
        """The first looks try other normalisations, until there are enough images to tell."""
        assert self._right is not None
        assert self.task.teacher is not None
        size = self.task.teacher.adapt.size
        images_BCHW = batch.images_BCHW
        wanted_BCHW = TeacherInput(formats.student, formats.teacher, size).to(images_BCHW.device)(images_BCHW)
        symptoms = [
            pixels_symptom(pixels_outside(images_BCHW, formats.student)),
            adapter_symptom(given_BCHW, wanted_BCHW.float()),
        ]
        self._right.append(
            (right_B, right_answers(self.task.teacher.model, images_BCHW, batch.labels_B, formats, size))
        )
        given_N = np.concatenate([given for given, _ in self._right])
        if len(given_N) < LEAST_IMAGES:
            return symptoms
        others = {name: np.concatenate([other[name] for _, other in self._right]) for name in self._right[0][1]}
        self._right = None
        symptoms.append(
            accuracy_symptom(given_N, others, (facts.input_mean, facts.input_std), self.known_accuracy)
        )
        return symptoms

    # --- findings

    def _new(self, symptoms: Iterable[Symptom | None], step: int) -> list[Finding]:
        """Findings of what was not found before; each fault is told once."""
        known = {(finding.kind, finding.term) for finding in self.findings}
        found = []
        for symptom in symptoms:
            if symptom is None or (symptom.kind, symptom.term) in known:
                continue
            known.add((symptom.kind, symptom.term))
            severity = "stop" if symptom.kind in self.section.stop_on else "warning"
            found.append(Finding(step=step, severity=severity, **vars(symptom)))
        self.findings += found
        return found

    @staticmethod
    def _stop_if_asked(found: Sequence[Finding]) -> None:
        for finding in found:
            if finding.severity == "stop":
                raise as_error(finding)


def as_error(finding: Finding | Symptom) -> DiagnosisError:
    """A fault as the error that ends the training."""
    when = f"Step {finding.step}: " if isinstance(finding, Finding) and finding.step else ""
    return DiagnosisError(f"{when}{finding.seen} {finding.means}", finding.cure)
