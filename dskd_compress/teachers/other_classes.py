"""What to do about a teacher of other classes than the data: three commands with the options of the run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from dskd_compress.config import Recipe
from dskd_compress.label_space import ClassNames, class_map_override
from dskd_compress.recipe import recipe_as_options
from dskd_compress.run_folder import RunFolder
from dskd_export.errors import DataError

_MOST_CLASSES = 100  # a map of more is no line to paste


def refuse_other_classes(recipe: Recipe, folder: RunFolder, classes: Sequence[str], teacher: ClassNames) -> None:
    """Refuse a teacher whose outputs cannot be the data's classes.

    Args:
        recipe: of the run.
        folder: of the run.
        classes: of the data.
        teacher: how many classes it has, and their names where they are known.

    Raises:
        DataError: it has another number of classes, or no classifier.
    """
    if teacher.count == len(classes):
        return
    ways = [
        ("fit a classifier on its features", _command(recipe, folder, "distill", "--set teacher.probe=true")),
        ("train it on these classes", _command(recipe, folder, "train", _training(recipe))),
    ]
    if teacher.count >= len(classes) and len(classes) <= _MOST_CLASSES:
        option, remark = _class_map(classes, teacher)
        ways.insert(1, (f"map its classes{remark}", _command(recipe, folder, "distill", option)))
    raise DataError(
        f"The teacher has {teacher.count} classes, the data {len(classes)}."
        if teacher.count
        else "The teacher has no classifier.",
        "One of these:\n" + "\n".join(f"  {way}: {command}" for way, command in ways),
    )


def _command(recipe: Recipe, folder: RunFolder, name: str, option: str) -> str:
    # A teacher that gets a new classifier is built with the classes of its weights, or of the data.
    kwargs = {key: value for key, value in recipe.teacher.kwargs.items() if key != "num_classes"}
    teacher = recipe.teacher.model_copy(update={"kwargs": kwargs})
    options = recipe_as_options(recipe.model_copy(update={"teacher": teacher}))
    return f"dskd-compress {name} {shlex.join(options)} {option} --out {shlex.quote(str(folder.path))}"


def _training(recipe: Recipe) -> str:
    """The option that trains the teacher as the student would be."""
    settings = recipe.train.model_dump(mode="json", exclude_defaults=True)
    return f"--set {shlex.quote(f'teacher.train={json.dumps(settings)}')}"


def _class_map(classes: Sequence[str], teacher: ClassNames) -> tuple[str, str]:
    """The option, and what is to be changed in it: a class that the teacher has no name for stands anywhere."""
    found = [teacher.find(name) for name in classes]
    if None not in found and len(set(found)) == len(found):
        return "--set teacher.class_map=by_name", ""
    free = iter(index for index in range(teacher.count) if index not in found)
    mapping, guessed = {}, []
    for index, name in zip(found, classes, strict=True):
        own = str(index if index is not None else next(free))
        if index is None:
            guessed.append(own)
        mapping[own] = name
    return class_map_override(mapping), f" (put the numbers of its own classes in place of {', '.join(guessed)})"
