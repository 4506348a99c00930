"""What the stages that touch images and models start with."""

from __future__ import annotations

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
from dskd_compress.stages.teacher_classes import map_classes
from dskd_compress.stages.teacher_probe import load_probe
from dskd_compress.weights import WeightsInfo, find_info, load_trained
from dskd_export.errors import DataError, ModelError


@dataclass(frozen=True)
class TeacherModel:
    """A teacher with good weights, and how it wants its images."""

    model: nn.Module
    format: Preprocessing
    weights: str


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
    check_data(sets, None, every_class=every_class)
    if output is not None and sets.left_out:
        output.once(f"{sets.source}: left out {', '.join(sets.left_out)}")
    return sets


def create_student(recipe: Recipe, classes: int) -> tuple[nn.Module, Preprocessing]:
    """The student before its training: the same for the same seed."""
    torch.manual_seed(recipe.seed)
    student = create_model(recipe.student, num_classes=classes, input_size=recipe.data.input_size)
    return student, resolve_preprocessing(recipe.data, student)


def create_untrained_teacher(recipe: Recipe, classes: int) -> tuple[nn.Module, Preprocessing]:
    """The teacher before its training by this recipe, which shows it the images as its student will get them."""
    _, format = create_student(recipe, classes)
    torch.manual_seed(recipe.seed)
    return create_model(recipe.teacher, num_classes=classes, input_size=format.input_size[1]), format


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
    return replace(teacher, model=model, weights=f"{teacher.weights}, classifier fitted on {facts.images} images")


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
        check_data(sets, int(model.num_classes))  # type: ignore[arg-type]
        if info is not None and checkpoint is not None:
            check_classes(info.classes, sets, checkpoint, "train")
    return TeacherModel(model, format, source)


def _classes_of_weights(section: TeacherSection, info: WeightsInfo | None, sets: DataSets) -> int | None:
    """How many classes to build a teacher for; None leaves it to timm, whose pretrained weights have timm's."""
    if section.checkpoint is None:
        return None
    if section.class_map is None and section.probe is None:
        return len(sets.classes)  # a checkpoint of one's own has one's own classes
    return count_classes(section.name, section.checkpoint) if info is None else len(info.classes)


def check_classes(classes: tuple[str, ...], sets: DataSets, path: Path, stage: str) -> None:
    """Refuse weights whose logits mean other classes than the labels of the data.

    Args:
        classes: of the weights.
        path: the weights, for the message.
        stage: the command that makes them anew.

    Raises:
        DataError: the classes differ.
    """
    if classes != tuple(sets.classes):
        raise DataError(
            f"{path} was trained on other classes than {sets.source} has.",
            f"Give data.source of that training (--set data.source=...), or train again: dskd-compress {stage}",
        )


def make_pair(student: nn.Module, student_format: Preprocessing, teacher: TeacherModel) -> Pair:
    """A student and its teacher."""
    return Pair(student, student_format, teacher.model, teacher.format)
