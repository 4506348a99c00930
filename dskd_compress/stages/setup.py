"""What the stages that touch images and models start with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from dskd_compress.config import DataSection, Recipe
from dskd_compress.data import DataSets, Preprocessing, check_data, open_data, resolve_preprocessing
from dskd_compress.methods import Pair
from dskd_compress.models import create_model
from dskd_compress.run_folder import RunFolder
from dskd_compress.weights import load_trained
from dskd_export.errors import DataError, ModelError


@dataclass(frozen=True)
class TeacherModel:
    """A teacher with good weights, and how it wants its images."""

    model: nn.Module
    format: Preprocessing
    weights: str


def open_checked_data(recipe: Recipe) -> DataSets:
    """Open the recipe's images and check all that can be checked without a model.

    Raises:
        DataError: the data set is not usable; the message says where and what to change.
    """
    sets = open_data(recipe.data, recipe.seed)
    check_data(sets, None)
    return sets


def create_student(recipe: Recipe, classes: int) -> tuple[nn.Module, Preprocessing]:
    """The student before its training: the same for the same seed."""
    torch.manual_seed(recipe.seed)
    student = create_model(recipe.student, num_classes=classes, input_size=recipe.data.input_size)
    return student, resolve_preprocessing(recipe.data, student)


def create_untrained_teacher(recipe: Recipe, classes: int) -> tuple[nn.Module, Preprocessing]:
    """The teacher before its training by this recipe, at the student's input size."""
    torch.manual_seed(recipe.seed)
    teacher = create_model(recipe.teacher, num_classes=classes, input_size=recipe.data.input_size)
    return teacher, resolve_preprocessing(recipe.data, teacher)


def load_teacher(recipe: Recipe, folder: RunFolder, sets: DataSets) -> TeacherModel:
    """The teacher that teaches: trained by this run, or with the weights that the recipe names.

    Raises:
        DataError: it was not trained yet, or its classes are not those of the data.
        ModelError: its weights cannot be had.
    """
    if recipe.teacher.train is not None:
        path = folder.require("teacher.safetensors", "train")
        model, info = load_trained(path)
        if info.classes != sets.classes:
            raise DataError(
                f"{path} was trained on other classes than {sets.source} has.",
                "Train the teacher again: dskd-compress train",
            )
        return TeacherModel(model, info.preprocessing, "trained by this run")
    if not recipe.teacher.pretrained and recipe.teacher.checkpoint is None:
        raise ModelError(
            f"The teacher {recipe.teacher.name} has no weights: pretrained is false and nothing trains it.",
            "Set teacher.pretrained, teacher.checkpoint (--teacher-checkpoint) or teacher.train.",
        )
    # A checkpoint of one's own has one's own classes; pretrained weights have timm's.
    classes = len(sets.classes) if recipe.teacher.checkpoint is not None else None
    model = create_model(recipe.teacher, num_classes=classes, input_size=recipe.data.input_size).eval()
    check_data(sets, int(model.num_classes))  # type: ignore[arg-type]
    # The teacher keeps the normalisation that it was trained with, whatever the recipe sets for the student.
    own = resolve_preprocessing(DataSection(input_size=recipe.data.input_size), model)
    source = f"checkpoint {recipe.teacher.checkpoint.name}" if recipe.teacher.checkpoint else "pretrained"
    return TeacherModel(model, own, source)


def make_pair(student: nn.Module, student_format: Preprocessing, teacher: TeacherModel) -> Pair:
    """A student and its teacher."""
    return Pair(student, student_format, teacher.model, teacher.format)
