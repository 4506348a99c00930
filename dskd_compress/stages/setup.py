"""Images and models that the stages start with."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from dskd_compress.config import DataSection, Recipe, TeacherSection
from dskd_compress.console import Output
from dskd_compress.data import DataSets, Preprocessing, check_data, open_data, resolve_preprocessing
from dskd_compress.label_space import ProbedModel
from dskd_compress.methods import Pair
from dskd_compress.models import count_classes, create_model
from dskd_compress.run_folder import DISTILL, TEACHER_PROBE, RunFolder
from dskd_compress.teachers.classes import class_names_of, map_classes, outputs_of
from dskd_compress.teachers.other_classes import refuse_other_classes
from dskd_compress.teachers.probe import load_probe
from dskd_compress.weights import WeightsInfo, find_info, load_trained
from dskd_export.errors import DataError, ModelError


@dataclass(frozen=True)
class TeacherModel:
    """A teacher with good weights, and how it wants its images.

    Attributes:
        origin: who says how it wants its images, in words; None: it is known to be right.
        outputs: its own classes behind each of its outputs; None: they are the data's.
    """

    model: nn.Module
    format: Preprocessing
    weights: str
    origin: str | None = None
    outputs: list[list[str]] | None = None


def open_checked_data(recipe: Recipe, output: Output | None = None, *, every_class: bool = True) -> DataSets:
    """Open the recipe's images and check all that can be checked without a model.

    Args:
        recipe: names them.
        output: gets one line about what the scan left out; None: nothing is shown.
        every_class: a class without images is refused, as a training has to.

    Raises:
        DataError: the data set is not usable; the message says where and what to change.
    """
    sets = open_data(recipe.data, recipe.seed)
    check_data(sets, every_class=every_class)
    if output is not None and sets.left_out:
        output.once(f"{sets.source}: left out {', '.join(sets.left_out)}")
    return sets


def _say_nothing(sentence: str) -> None:
    """Print nothing: the model is not trained."""


def create_student(
    recipe: Recipe, classes: int, on_new_classifier: Callable[[str], None] = _say_nothing
) -> tuple[nn.Module, Preprocessing]:
    """Create the untrained student; the same seed gives the same weights.

    Args:
        recipe: names it, and the weights that it starts from.
        classes: of the data.
        on_new_classifier: called with a sentence where the checkpoint's classifier is of other classes.
    """
    torch.manual_seed(recipe.seed)
    student = create_model(
        recipe.student,
        num_classes=classes,
        input_size=recipe.data.input_size,
        on_new_classifier=on_new_classifier,
    )
    return student, resolve_preprocessing(recipe.data, student)


def create_untrained_teacher(
    recipe: Recipe, classes: int, on_new_classifier: Callable[[str], None] = _say_nothing
) -> tuple[nn.Module, Preprocessing]:
    """Create the untrained teacher; its training shows it the images as the student gets them.

    Args:
        recipe: names it, and the weights that it starts from.
        classes: of the data.
        on_new_classifier: called with a sentence where the checkpoint's classifier is of other classes.
    """
    _, format = create_student(recipe, classes)
    torch.manual_seed(recipe.seed)
    teacher = create_model(
        recipe.teacher,
        num_classes=classes,
        input_size=format.input_size[1],
        on_new_classifier=on_new_classifier,
    )
    return teacher, format


def load_teacher(recipe: Recipe, folder: RunFolder, sets: DataSets) -> TeacherModel:
    """The teacher that teaches: it answers in the classes of the data.

    Raises:
        DataError: it, or the classifier that its recipe fits, was not trained yet; or it has other classes
            than the data.
        RecipeError: the recipe's class map does not fit its classes.
        ModelError: its weights cannot be had.
    """
    teacher = load_own_teacher(recipe, folder, sets)
    if recipe.teacher.probe is None:
        return teacher
    path = folder.require(TEACHER_PROBE, DISTILL)
    classifier, facts = load_probe(path)
    if classifier.out_features != len(sets.classes):
        raise DataError(
            f"{path} knows {classifier.out_features} classes, the data {len(sets.classes)}.",
            "Fit it again: dskd-compress distill",
        )
    model = ProbedModel(teacher.model, classifier).eval()
    weights = f"{teacher.weights}, classifier fitted on {facts.images} images"
    return replace(teacher, model=model, weights=weights, outputs=None)


def load_own_teacher(recipe: Recipe, folder: RunFolder, sets: DataSets) -> TeacherModel:
    """The teacher with its own classifier, its classes mapped where the recipe says so.

    Raises what `load_teacher` does; a teacher whose classifier is to be fitted may have any classes, or none.
    """
    section = recipe.teacher
    if section.train is not None:
        path = folder.require("teacher.safetensors", "train")
        model, trained = load_trained(path)
        check_classes(trained.classes, sets, path, "train")
        return TeacherModel(model, trained.preprocessing, "trained by this run")
    if not section.pretrained and section.checkpoint is None:
        raise ModelError(
            f"The teacher {section.name} has no weights: pretrained is false and nothing trains it.",
            "Set teacher.pretrained, teacher.checkpoint (--teacher-checkpoint) or teacher.train.",
        )
    checkpoint = section.checkpoint
    info = None if checkpoint is None else find_info(checkpoint)
    size = recipe.data.input_size if info is None else info.input_size[1]
    if isinstance(own_size := section.kwargs.get("img_size"), int):
        size = own_size  # a teacher that takes one size gets its images in that, whatever the student gets
    classes = _classes_of_weights(section, info, sets)
    model = create_model(section, num_classes=classes, input_size=size).eval()
    source = "pretrained" if checkpoint is None else f"checkpoint {checkpoint.name}"
    # The teacher keeps the normalisation that it was trained with, whatever the recipe sets for the student:
    # weights of another run say it themselves, for others it is timm's.
    format = resolve_preprocessing(DataSection(input_size=size), model) if info is None else info.preprocessing
    if section.class_map is not None:
        own = int(model.num_classes)  # type: ignore[arg-type]
        model = map_classes(model, section, info, sets)
        source = f"{source}, {model.class_map.members} of {own} classes mapped"
    elif section.probe is None:
        refuse_other_classes(recipe, folder, sets.classes, class_names_of(model, section, info))
        if info is not None and checkpoint is not None:
            check_classes(info.classes, sets, checkpoint, "train")
    origin = None if info is not None else f"timm's for {section.name}"
    if section.mean is not None or section.std is not None:
        format = replace(format, mean=section.mean or format.mean, std=section.std or format.std)
        origin = "teacher.mean and teacher.std"
    return TeacherModel(model, format, source, origin, outputs_of(model, section, info))


def _classes_of_weights(section: TeacherSection, info: WeightsInfo | None, sets: DataSets) -> int | None:
    """How many classes to build a teacher for; None leaves it to timm, whose pretrained weights have timm's."""
    if section.checkpoint is None:
        return None
    if info is not None:
        return len(info.classes)
    counted = count_classes(section.name, section.checkpoint)
    if counted is None and section.class_map is None and section.probe is None:
        return len(sets.classes)  # a checkpoint of one's own has one's own classes
    return counted


def check_classes(classes: tuple[str, ...], sets: DataSets, path: Path, stage: str) -> None:
    """Refuse weights whose classes are not those of the data.

    Args:
        classes: of the weights.
        path: the weights, for the message.
        stage: the command that makes them anew.

    Raises:
        DataError: the classes differ.
    """
    if classes != tuple(sets.classes):
        in_run = (path.parent / "recipe.yaml").is_file()
        again = f"dskd-compress {stage}{f' {shlex.quote(str(path.parent))}' if in_run else ''}"
        raise DataError(
            f"{path} was trained on other classes than {sets.source} has.",
            f"Give the images of that training: --set data.source=FOLDER; or train again: {again}",
        )


def make_pair(student: nn.Module, student_format: Preprocessing, teacher: TeacherModel) -> Pair:
    """Pair a student with its teacher."""
    return Pair(student, student_format, teacher.model, teacher.format)
