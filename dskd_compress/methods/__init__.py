"""Distillation methods: one file (or folder) each, one visible table here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from dskd_compress.config import DskdMethod, KdMethod, Method, NoneMethod
from dskd_compress.data import Preprocessing
from dskd_compress.methods.base import MethodTask, Teacher
from dskd_compress.methods.dskd.task import DskdModule, DskdTask
from dskd_compress.methods.kd import KdModule
from dskd_compress.methods.none import CrossEntropyModule
from dskd_compress.models import TeacherInput, architecture, has_fixed_input
from dskd_compress.taps import Tap, TapHead, choose_tap, find_head, find_tap, probe
from dskd_export.errors import ModelError

__all__ = ["MethodTask", "Pair", "Taps", "create_task", "find_taps", "needs_teacher"]


@dataclass(frozen=True)
class Pair:
    """A student, a teacher, and how each wants its images."""

    student: nn.Module
    student_format: Preprocessing
    teacher: nn.Module
    teacher_format: Preprocessing

    @property
    def teacher_size(self) -> tuple[int, int, int]:
        """Channels, height, width that the teacher is given: the student's, unless its own is fixed."""
        fixed = has_fixed_input(self.teacher)
        return self.teacher_format.input_size if fixed else self.student_format.input_size

    def adapter(self) -> TeacherInput:
        """From the student's images to the teacher's."""
        size = self.teacher_size[1:]
        return TeacherInput(
            (self.student_format.mean, self.student_format.std),
            (self.teacher_format.mean, self.teacher_format.std),
            None if size == self.student_format.input_size[1:] else size,
        )

    def check_classes(self) -> None:
        """Refuse a teacher of other classes.

        Raises:
            ModelError: the two have different numbers of classes.
        """
        classes = [int(model.num_classes) for model in (self.teacher, self.student)]  # type: ignore[arg-type]
        if classes[0] != classes[1]:
            raise ModelError(
                f"The teacher {architecture(self.teacher)} has {classes[0]} classes, the student {classes[1]}.",
                "Give a teacher checkpoint for this data set, or train the teacher on it (teacher.train).",
            )


@dataclass(frozen=True)
class Taps:
    """Where DSKD reads both models, and the teacher's head from there on."""

    student: Tap
    teacher: Tap
    head: TapHead


def needs_teacher(method: Method) -> bool:
    """Whether a method asks a teacher anything."""
    return not isinstance(method, NoneMethod)


def find_taps(method: DskdMethod, pair: Pair) -> Taps:
    """The taps that DSKD reads of a pair.

    Raises:
        TapError: a model does not have the tap that the recipe asks for.
    """
    teacher_seen = probe(pair.teacher, pair.teacher_size)
    student_seen = probe(pair.student, pair.student_format.input_size)
    kind = choose_tap(method.tap, pair.teacher, teacher_seen, pair.student, student_seen)
    teacher_tap = find_tap(pair.teacher, teacher_seen, kind)
    head = find_head(pair.teacher, teacher_seen, teacher_tap)
    return Taps(find_tap(pair.student, student_seen, kind), teacher_tap, head)


def create_task(
    method: Method,
    student: nn.Module,
    pair: Pair | None,
    *,
    label_smoothing: float,
    seed: int,
    device: torch.device,
) -> MethodTask:
    """Put a student, a teacher and a method together.

    Args:
        method: the recipe's section.
        student: trained in place.
        pair: the student with its teacher, which is frozen in place; None where the method has none.
        label_smoothing: of the cross-entropy, in [0, 1].
        seed: of projection, denoiser and hash planes.
        device: where the training runs.

    Raises:
        ModelError: the classes of teacher and student differ.
        TapError: a model lacks the tap that the method reads.
    """
    torch.manual_seed(seed)
    if isinstance(method, NoneMethod) or pair is None:
        return MethodTask(CrossEntropyModule(student, label_smoothing), None, device)
    pair.check_classes()
    if isinstance(method, KdMethod):
        return MethodTask(
            KdModule(student, method, label_smoothing), Teacher(pair.teacher, pair.adapter()), device
        )
    taps = find_taps(method, pair)
    module = DskdModule(student, taps.student, taps.teacher, taps.head, method, label_smoothing, seed)
    return DskdTask(module, Teacher(pair.teacher, pair.adapter(), taps.teacher, taps.head), device)
