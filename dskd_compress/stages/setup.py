"""Images and models that the stages start with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from dskd_compress.config import ModelSection, Recipe, TeacherSection
from dskd_compress.console import Output
from dskd_compress.data import (
    DataSets,
    Preprocessing,
    check_data,
    find_ignored_orientation,
    open_data,
    resolve_preprocessing,
)
from dskd_compress.methods import Pair
from dskd_compress.models import create_model
from dskd_compress.teachers.load import TeacherModel, check_has_weights, find_own_format
from dskd_export.errors import ModelError, RecipeError

_FEW_STEPS = 20_000  # image classifiers that start at random are trained for 50,000 to 500,000


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


def warn_of_orientation(recipe: Recipe, sets: DataSets, output: Output) -> None:
    """Warn, once, where more than 1 % of the images carry a rotation in EXIF that is ignored."""
    sentence = find_ignored_orientation(sets, recipe.seed)
    if sentence is not None:
        output.warn_once(sentence)


def _say_nothing(sentence: str) -> None:
    """Print nothing: the model is not trained."""


def create_student(
    recipe: Recipe, classes: int, on_note: Callable[[str], None] = _say_nothing
) -> tuple[nn.Module, Preprocessing]:
    """Create the untrained student; the same seed gives the same weights.

    Args:
        on_note: called with a sentence where not all of the checkpoint is loaded as it is: a classifier of other
            classes, tables of another image size.
    """
    student = _create(recipe.student, recipe.seed, classes, recipe.data.input_size, on_note)
    return student, resolve_preprocessing(recipe.data, student)


def decide_student_start(recipe: Recipe) -> tuple[bool, str]:
    """Decide whether the student starts from timm's pretrained weights, which are downloaded if need be.

    Returns:
        The decision, and the reason where the recipe leaves it open and the weights cannot be had.

    Raises:
        RecipeError: the batch norm of random weights would be frozen.
    """
    wanted = recipe.student.pretrained
    if wanted != "auto":
        return wanted, ""
    try:
        create_model(
            recipe.student.model_copy(update={"pretrained": True}),
            num_classes=None,
            input_size=recipe.data.input_size,
        )
    except ModelError as error:
        cause = error.__cause__
        missing = (cause if isinstance(cause, ModelError) else error).message
        if recipe.train.freeze_batch_norm:
            raise RecipeError(
                f"train.freeze_batch_norm would freeze the student's random weights: {missing}",
                "Add --student-checkpoint FILE, or --set train.freeze_batch_norm=false",
            ) from error
        return False, missing
    return True, ""


def set_student_start(recipe: Recipe, pretrained: bool) -> Recipe:
    """Write the decision into the recipe: later stages and a resumed training read it there."""
    if recipe.student.pretrained == pretrained:
        return recipe
    student = recipe.student.model_copy(update={"pretrained": pretrained})
    return recipe.model_copy(update={"student": student})


def report_student_start(recipe: Recipe, missing: str, steps: int, output: Output) -> None:
    """Print what the student starts from; random weights that nobody chose are a warning.

    Args:
        missing: why the pretrained weights cannot be had; empty: nobody tried.
        steps: of the training to come.
    """
    section = recipe.student
    start = {
        "checkpoint": f"the checkpoint {section.checkpoint}",
        "pretrained": "timm's pretrained weights",
        "random": "random weights",
    }[section.start]
    text = f"Student {section.name} starts from {start}"
    if not missing:
        output.plain(f"{text}.")
        return
    few = f" Expect low accuracy after {steps:,} steps." if steps < _FEW_STEPS else ""
    output.warn(f"{text}. Pretrained weights: {missing}{few} To start from others: --student-checkpoint FILE")


def create_untrained_teacher(
    recipe: Recipe, classes: int, on_note: Callable[[str], None] = _say_nothing
) -> tuple[nn.Module, Preprocessing]:
    """Create the teacher that is to be trained.

    Its training shows it the images as the student gets them. One whose features stay frozen gets them with the
    normalisation that its features were trained with.

    Args:
        on_note: as for `create_student`.

    Raises:
        ModelError: there are no weights for the features that are to stay frozen.
    """
    section = drop_own_classes(recipe.teacher)
    # Of the student only the preprocessing is needed here, which no weights change.
    bare = recipe.student.model_copy(update={"pretrained": False, "checkpoint": None})
    _, format = create_student(recipe.model_copy(update={"student": bare}), classes)
    if section.chosen_fit == "head":
        check_has_weights(section)
    model = _create(section, recipe.seed, classes, format.input_size[1], on_note)
    if section.chosen_fit != "head":
        return model, format
    own = find_own_format(section, model, format.input_size[1])
    return model, replace(format, mean=own.mean, std=own.std)


def drop_own_classes(section: TeacherSection) -> TeacherSection:
    """Drop the number of classes of a teacher's weights: trained here, it has those of the data."""
    kwargs = {name: value for name, value in section.kwargs.items() if name != "num_classes"}
    return section.model_copy(update={"kwargs": kwargs})


def _create(
    section: ModelSection, seed: int, classes: int, size: int | None, on_note: Callable[[str], None]
) -> nn.Module:
    torch.manual_seed(seed)
    return create_model(
        section,
        num_classes=classes,
        input_size=size,
        on_new_classifier=on_note,
        on_change=lambda change: on_note(f"{section.checkpoint}: {change}."),
    )


def make_pair(student: nn.Module, student_format: Preprocessing, teacher: TeacherModel) -> Pair:
    """Pair a student with its teacher."""
    return Pair(student, student_format, teacher.model, teacher.format, teacher.own_size)
