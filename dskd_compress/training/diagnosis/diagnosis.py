"""Diagnosis of a running distillation. It reads, and leaves the training bit for bit as it is.

A hook on the task sees each batch with its losses while their graph exists; `after_backward`, which the
loop calls in each step, runs the checks. Nothing is drawn from a random generator and no `.grad` is touched.
Steps 1, 2, 3, then every `every_steps`, and the last one are checked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from dskd_compress.config import DiagnosisSection
from dskd_compress.label_space import class_map_override
from dskd_compress.methods.base import OUTSIDE, MethodTask, StepContext
from dskd_compress.training.diagnosis.gradients import TermGradients
from dskd_compress.training.diagnosis.symptom import Symptom
from dskd_compress.training.diagnosis.teacher import frozen_symptom, not_optimized_symptom
from dskd_compress.training.diagnosis.teacher_checks import CheckedBatch, TeacherChecks
from dskd_compress.training.diagnosis.teacher_input import Formats
from dskd_compress.training.diagnosis.terms import (
    Snapshot,
    collapsed_symptom,
    dead_symptoms,
    exploding_symptoms,
    unreached_symptoms,
)
from dskd_export.documents.training import DiagnosisRecord, Finding
from dskd_export.errors import DiagnosisError

FIRST_STEPS = 3


class Diagnosis:
    """Checks one distillation for faults.

    Args:
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
        self.section, self.task, self.seen_before = section, task, seen_before
        self.findings: list[Finding] = []
        self._teacher_settings = (formats, classes, known_accuracy, outputs, as_option)
        self._teacher: TeacherChecks | None = None
        self._records: list[DiagnosisRecord] = []
        self._gradients = TermGradients(task)
        self._snapshots: list[Snapshot] = []
        self._monitors: list[tuple[int, dict[str, float]]] = []
        self._last: int | None = None
        self._batch: CheckedBatch | None = None
        self._hooks: list[Any] = []
        self._optimizer: torch.optim.Optimizer | None = None
        self._scale: Callable[[], float] = lambda: 1.0

    def begin(
        self,
        step: int,
        optimizer: torch.optim.Optimizer,
        *,
        scale: Callable[[], float] = lambda: 1.0,
        last: int | None = None,
        earlier: Iterable[DiagnosisRecord] = (),
    ) -> None:
        """Check what can be checked before the first step, and start observing the task.

        Args:
            step: updates that are done already.
            scale: factor of the loss in half precision.
            last: number of the last step, 1-based, which is checked in any case; None: unknown.
            earlier: records of the same training before it was interrupted.

        Raises:
            DiagnosisError: a fault that `stop_on` names.
        """
        for record in earlier:
            # One that ended the training is found anew, unless it was fixed.
            self.findings += [finding for finding in record.findings if finding.severity == "warning"]
        self._last, self._optimizer, self._scale = last, optimizer, scale
        teacher = self.task.teacher
        if teacher is not None:
            self._teacher = TeacherChecks(teacher, *self._teacher_settings)
        self._hooks = [
            self.task.register_forward_pre_hook(self._request_monitors),
            self.task.register_forward_hook(self._observe),
        ]
        symptoms = [
            self.seen_before,
            not_optimized_symptom(self.task.module, optimizer),
            None if teacher is None else frozen_symptom(teacher.model, optimizer),
        ]
        found = self._add_findings(symptoms, step)
        if found:
            self._records.append(
                DiagnosisRecord(
                    step=step, epoch=0, gradient_norms={}, gradient_at={}, teacher=None, findings=found
                )
            )
            self._raise_if_severe(found)

    def close(self) -> None:
        """Stop observing the task."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def take(self) -> list[DiagnosisRecord]:
        """Return the records since the last call."""
        records, self._records = self._records, []
        return records

    def _is_due(self, context: StepContext) -> bool:
        number = context.step + 1
        return number <= FIRST_STEPS or number % self.section.every_steps == 0 or number == self._last

    # --- while the graph of a step exists

    def _request_monitors(self, task: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Compute the costly monitors, which most steps leave out, in a step that is checked."""
        images_BCHW, target, context = (*inputs, OUTSIDE)[:3]
        if self._is_due(context):
            context = dataclasses.replace(context, wants_monitors=True)
        return images_BCHW, target, context

    def _observe(self, task: nn.Module, inputs: tuple[Any, ...], result: dict[str, Any]) -> None:
        """Keep what the checks need of a batch, of the first micro-batch where a step has several."""
        images_BCHW, target, context = inputs
        labels_B = target if target.ndim == 1 else target.argmax(dim=1)
        teacher = result.get("teacher")
        logits_BK = None if teacher is None else teacher.logits_BK.detach()
        if logits_BK is not None and self._teacher is not None:
            self._teacher.collect(labels_B, logits_BK)
        if not self._is_due(context) or self._batch is not None:
            return
        self._batch = CheckedBatch(
            images_BCHW,
            labels_B,
            logits_BK,
            {name: float(term.detach()) for name, term in result["terms"].items()},
            self._gradients.measure(result["terms"], self._scale()),
            {name: float(value) for name, value in result["monitors"].items()},
        )

    # --- once a step

    def after_backward(self, context: StepContext) -> None:
        """Run the checks, in a step that is to be checked.

        Raises:
            DiagnosisError: a fault that `stop_on` names.
        """
        batch, self._batch = self._batch, None
        if batch is None:
            return
        number, module = context.step + 1, self.task.module
        self._snapshots.append(Snapshot(number, batch.values, batch.norms))
        self._monitors.append((number, batch.monitors))
        facts, symptoms = None, list[Symptom | None]()
        if self._teacher is not None and batch.logits_BK is not None:
            facts, symptoms = self._teacher.check(batch, batch.logits_BK, self._optimizer)
        symptoms += unreached_symptoms(list(batch.values), self._gradients.reaching, module.head_terms)
        symptoms += dead_symptoms(self._snapshots)
        symptoms += exploding_symptoms(self._snapshots)
        symptoms.append(collapsed_symptom(self._monitors))
        if self._optimizer is not None:
            symptoms.append(not_optimized_symptom(module, self._optimizer))
        found = self._add_findings(symptoms, number)
        norms = {k: v if v is not None and np.isfinite(v) else None for k, v in batch.norms.items()}
        self._records.append(
            DiagnosisRecord(
                step=number,
                epoch=0 if context.position is None else context.position[0],
                gradient_norms=norms,
                gradient_at=self._gradients.place,
                teacher=facts,
                findings=found,
            )
        )
        self._raise_if_severe(found)

    # --- findings

    def _add_findings(self, symptoms: Iterable[Symptom | None], step: int) -> list[Finding]:
        """Record the faults that were not found before; each is reported once."""
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
    def _raise_if_severe(found: Sequence[Finding]) -> None:
        for finding in found:
            if finding.severity == "stop":
                raise as_error(finding)


def as_error(finding: Finding | Symptom) -> DiagnosisError:
    """Convert a fault to the error that ends the training."""
    when = f"Step {finding.step}: " if isinstance(finding, Finding) and finding.step else ""
    return DiagnosisError(f"{when}{finding.seen} {finding.means}", finding.cure)
