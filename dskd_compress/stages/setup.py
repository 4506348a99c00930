"""Images and models that the stages start with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from dskd_compress.config import ModelSection, Recipe, TeacherSection
from dskd_compress.console import Output
from dskd_compress.data import DataSets, Preprocessing, check_data, open_data, resolve_preprocessing
from dskd_compress.methods import Pair
from dskd_compress.models import create_model
from dskd_compress.teachers.load import TeacherModel, check_has_weights, find_own_format


def open_checked_data(recipe: Recipe, output: Output | None = None, *, every_class: bool = True) -> DataSets:
    """Open the recipe's images and check all that can be checked without a model.

    Args:
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
        on_new_classifier: called with a sentence where the checkpoint's classifier is of other classes.
    """
    student = _create(recipe.student, recipe.seed, classes, recipe.data.input_size, on_new_classifier)
    return student, resolve_preprocessing(recipe.data, student)


def create_untrained_teacher(
    recipe: Recipe, classes: int, on_new_classifier: Callable[[str], None] = _say_nothing
) -> tuple[nn.Module, Preprocessing]:
    """Create the teacher that is to be trained.

    Its training shows it the images as the student gets them. One whose features stay frozen gets them with the
    normalisation that its features were trained with.

    Args:
        on_new_classifier: as for `create_student`.

    Raises:
        ModelError: there are no weights for the features that are to stay frozen.
    """
    section = drop_own_classes(recipe.teacher)
    _, format = create_student(recipe, classes)
    if section.chosen_fit != "head":
        return _create(section, recipe.seed, classes, format.input_size[1], on_new_classifier), format
    check_has_weights(section)
    model = _create(section, recipe.seed, classes, format.input_size[1], on_new_classifier)
    own, _ = find_own_format(section, model, format.input_size[1])
    return model, replace(format, mean=own.mean, std=own.std)


def drop_own_classes(section: TeacherSection) -> TeacherSection:
    """Drop the number of classes of a teacher's weights: trained here, it has those of the data."""
    kwargs = {name: value for name, value in section.kwargs.items() if name != "num_classes"}
    return section.model_copy(update={"kwargs": kwargs})


def _create(
    section: ModelSection, seed: int, classes: int, size: int | None, on_new_classifier: Callable[[str], None]
) -> nn.Module:
    torch.manual_seed(seed)
    return create_model(section, num_classes=classes, input_size=size, on_new_classifier=on_new_classifier)


def make_pair(student: nn.Module, student_format: Preprocessing, teacher: TeacherModel) -> Pair:
    """Pair a student with its teacher."""
    return Pair(student, student_format, teacher.model, teacher.format)
