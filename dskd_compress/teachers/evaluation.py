"""Accuracy of the teacher: on its own input, on what the training feeds it, and against what is known of it.

A student is judged against the teacher on its own input, here and in `validate`: it is what ships today.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import torch

from dskd_compress.config import Recipe, TeacherSection
from dskd_compress.data import DataSets, Preprocessing, ValLoader
from dskd_compress.methods import Pair
from dskd_compress.models import TeacherInput
from dskd_compress.run_folder import RunFolder
from dskd_compress.teachers.cache.accuracy import measure_teacher_accuracy
from dskd_compress.teachers.load import TeacherModel
from dskd_compress.training.diagnosis.symptom import Symptom
from dskd_compress.training.evaluate import evaluate_model
from dskd_export.documents.base import Accuracy
from dskd_export.errors import DiagnosisError

_MUCH_SMALLER = 0.6  # of the side of the images that the weights know


@dataclass(frozen=True)
class TeacherAccuracy:
    """What a teacher reaches on the validation images.

    Attributes:
        own: on its own input, as `validate` measures it.
        as_fed: on the student's images, as the training feeds it; None: these are its own input.
    """

    own: Accuracy
    as_fed: Accuracy | None


@dataclass(frozen=True)
class TeacherEvaluation:
    """The models, images and digests that a teacher's accuracy depends on."""

    recipe: Recipe
    folder: RunFolder
    sets: DataSets
    pair: Pair
    val: ValLoader  # in the student's preprocessing
    data_sha256: str
    teacher_sha256: str
    device: torch.device

    def measure(self) -> TeacherAccuracy:
        """Measure the accuracy; twice where the training crops or resizes otherwise than the teacher wants."""
        pair = self.pair
        as_fed = self._measure(self.val, pair.adapter(), pair.student_format)
        if is_fed_its_own_input(pair):
            return TeacherAccuracy(as_fed, None)
        own = ValLoader(
            self.sets, pair.teacher_format, batch_size=64, device=self.device, workers=self.recipe.data.workers
        )
        norm = (pair.teacher_format.mean, pair.teacher_format.std)
        return TeacherAccuracy(self._measure(own, TeacherInput(norm, norm, None), pair.teacher_format), as_fed)

    def _measure(self, batches: ValLoader, adapter: TeacherInput, format: Preprocessing) -> Accuracy:
        adapt, teacher = adapter.to(self.device), self.pair.teacher.to(self.device).eval()
        return measure_teacher_accuracy(
            self.recipe,
            self.folder,
            adapt,
            format,
            data_sha256=self.data_sha256,
            teacher_sha256=self.teacher_sha256,
            device=self.device,
            measure=lambda: evaluate_model(lambda images_BCHW: teacher(adapt(images_BCHW)), batches)[0],
        )


def is_fed_its_own_input(pair: Pair) -> bool:
    """Check whether the student's images are cropped and resized as the teacher's own; their norm is exchanged."""
    one, other = pair.student_format, pair.teacher_format
    return (one.input_size, one.interpolation, one.crop_pct, one.crop_mode) == (
        other.input_size,
        other.interpolation,
        other.crop_pct,
        other.crop_mode,
    )


def describe_teacher(name: str, teacher: TeacherModel, pair: Pair, accuracy: TeacherAccuracy) -> list[str]:
    """Describe a teacher's accuracy and input, one sentence a line; each number says what it was fed."""
    return [*_describe_accuracy(name, teacher, pair, accuracy), *_describe_smaller(name, teacher, pair)]


def _describe_smaller(name: str, teacher: TeacherModel, pair: Pair) -> list[str]:
    """Say that a teacher gets much smaller images than its weights may know."""
    usual = _find_larger_px(teacher, pair)
    if usual is None:
        return []
    return [f"timm's {name} was trained at {usual} px. To feed it that: --set teacher.input_size={usual}"]


def _find_larger_px(teacher: TeacherModel, pair: Pair) -> int | None:
    """Find the side of timm's images for a teacher that gets much smaller ones; None: it does not."""
    fed, usual = pair.teacher_size[1], teacher.usual_px
    return None if usual is None or teacher.origin is None or fed > _MUCH_SMALLER * usual else usual


def _describe_accuracy(name: str, teacher: TeacherModel, pair: Pair, accuracy: TeacherAccuracy) -> list[str]:
    origin = teacher.origin or "of its training"
    own = accuracy.own.top1.value
    title = f"Teacher {name} ({teacher.weights}): top-1 {own:.2%}"
    if accuracy.as_fed is None:
        return [f"{title}, fed {describe_input(pair.teacher_format, pair.teacher_size, origin)}"]
    format = pair.teacher_format
    crop = f"{format.interpolation}, crop {format.crop_pct:.4g}"
    return [
        f"{title}, fed {describe_input(format, format.input_size, origin)}, {crop}",
        f"As the training feeds it, on the student's images of {describe_pixels(pair.teacher_size)}: "
        f"top-1 {accuracy.as_fed.top1.value:.2%}",
    ]


def describe_input(format: Preprocessing, size: tuple[int, int, int], origin: str) -> str:
    """Describe an input: `128 px, mean 0.485 0.456 0.406, std 0.229 0.224 0.225 (timm's for resnet34)`."""
    mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (format.mean, format.std))
    return f"{describe_pixels(size)}, mean {mean}, std {std} ({origin})"


def describe_pixels(size: tuple[int, int, int]) -> str:
    """Describe the size of an image: `128 px`, `96x128 px`."""
    return f"{size[1]} px" if size[1] == size[2] else f"{size[1]}x{size[2]} px"


def is_below_known(accuracy: Accuracy, known: float | None) -> bool:
    """Check whether a measured accuracy is clearly below the known one: the whole 95 % interval is."""
    return known is not None and accuracy.top1.high < known


def explain_below_known(
    accuracy: Accuracy, section: TeacherSection, teacher: TeacherModel, pair: Pair, normalisation: Symptom | None
) -> DiagnosisError:
    """Explain why a teacher that is fed wrongly is refused: hours of training from it would be lost.

    Args:
        accuracy: on its own input.
        section: of the recipe, with the known accuracy.
        teacher: that was measured.
        pair: of it and the student.
        normalisation: what was found to be wrong with its normalisation; None: nothing.
    """
    top1 = accuracy.top1
    larger = _find_larger_px(teacher, pair)
    if normalisation is not None:
        hint = normalisation.cure
    elif larger is not None:
        hint = f"Add to the command: --set teacher.input_size={larger}"
    else:
        hint = _list_candidates(section, pair)
    return DiagnosisError(
        f"The teacher reaches {top1.value:.2%} (95 %: {top1.low:.2%} to {top1.high:.2%}) on {accuracy.images:,} "
        f"validation images, clearly below the known {section.accuracy or 0:.2%} (teacher.accuracy).",
        hint,
    )


def _list_candidates(section: TeacherSection, pair: Pair) -> str:
    """List the settings that may differ from the teacher's training, with the values of today."""
    if section.train is not None:
        return "Train it longer (teacher.train.epochs), or drop --teacher-accuracy."
    format, height = pair.teacher_format, pair.teacher_size[1]
    mean, std = ("[" + ",".join(f"{value:.4g}" for value in values) + "]" for values in (format.mean, format.std))
    values = {
        "input_size": f"{height}",
        "crop_pct": f"{format.crop_pct:.4g}",
        "interpolation": format.interpolation,
        "mean": mean,
        "std": std,
    }
    options = " ".join(f"--set {shlex.quote(f'teacher.{key}={value}')}" for key, value in values.items())
    own_classes = section.probe is None and section.class_map is None
    classes = "Or map its classes: --set teacher.class_map=by_name. " if own_classes else ""
    return f"Add to the command, with the values of its training: {options}. {classes}Or drop --teacher-accuracy."
