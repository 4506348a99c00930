"""A student with its teacher: their images, their classes, and where they are read."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from dskd_compress.config import DskdMethod, FeatureMethod, LshfmMethod
from dskd_compress.data import Preprocessing
from dskd_compress.models import TeacherInput, has_fixed_input
from dskd_compress.pretrained import architecture
from dskd_compress.taps import Tap, TapHead, choose_tap, find_tap, find_teacher_tap, probe
from dskd_export.errors import ModelError


@dataclass(frozen=True)
class Pair:
    """A student, a teacher, and how each wants its images.

    Attributes:
        own_size: whether the teacher is fed images of the size of its weights, as one of a fixed size always is.
    """

    student: nn.Module
    student_format: Preprocessing
    teacher: nn.Module
    teacher_format: Preprocessing
    own_size: bool = False

    @property
    def teacher_size(self) -> tuple[int, int, int]:
        """Channels, height, width that the teacher is given: the student's, unless its own is fixed or set."""
        fixed = self.own_size or has_fixed_input(self.teacher)
        return self.teacher_format.input_size if fixed else self.student_format.input_size

    def adapter(self) -> TeacherInput:
        """Create the conversion from the student's images to the teacher's."""
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
                "Fit a classifier of these classes on its features: --set teacher.fit=probe",
            )


@dataclass(frozen=True)
class Taps:
    """Where both models are read, and the teacher's head from there on where the method needs it."""

    student: Tap
    teacher: Tap
    head: TapHead | None


def find_taps(method: FeatureMethod, pair: Pair) -> Taps:
    """Find the taps that a method reads of a pair.

    Raises:
        TapError: a model lacks the tap that the recipe names, or the teacher a head that leads on from it
            for a method that reads it.
    """
    teacher_seen = probe(pair.teacher, pair.teacher_size)
    student_seen = probe(pair.student, pair.student_format.input_size)
    guided = isinstance(method, DskdMethod)
    kind = choose_tap(method.tap, pair.teacher, teacher_seen, pair.student, student_seen, guided=guided)
    student_tap = find_tap(pair.student, student_seen, kind)
    if guided or (isinstance(method, LshfmMethod) and method.hash_std == "fc"):
        return Taps(student_tap, *find_teacher_tap(pair.teacher, teacher_seen, kind))
    return Taps(student_tap, find_tap(pair.teacher, teacher_seen, kind), None)
