"""Classes of a teacher against those of the data: mapped by `teacher.class_map`, or refused."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from dskd_compress.config import Recipe, TeacherSection
from dskd_compress.data import DataSets
from dskd_compress.label_space import (
    LONGEST_ON_A_COMMAND_LINE,
    ClassMappedModel,
    ClassNames,
    class_map_override,
    find_timm_names,
    read_class_names,
    resolve_class_map,
)
from dskd_compress.recipe import parse_yaml, recipe_as_options
from dskd_compress.recipe.yaml_text import MAX_BYTES
from dskd_compress.run_folder import RunFolder
from dskd_compress.weights import WeightsInfo
from dskd_export.errors import DataError, RecipeError
from dskd_export.files.atomic import write_atomic
from dskd_export.files.bounded import read_bounded

_MOST_CLASSES = 100  # the map of more does not fit a command line
_OF_LENGTH = {"epochs", "warmup_epochs"}  # the student's own; the teacher is trained for the default
_HINT = "Write one line per class of the teacher: `teacher class: data class`, as names or indices."


def map_classes(
    model: nn.Module, section: TeacherSection, info: WeightsInfo | None, sets: DataSets
) -> ClassMappedModel:
    """Map the classes of a teacher onto those of the data.

    Args:
        model: with the classifier of its weights.

    Raises:
        RecipeError: the map names unknown classes, or leaves out classes of the data.
    """
    names = find_class_names(model, section, info)
    mapping: Mapping[str, str | int]
    if isinstance(section.class_map, Path):
        mapping = read_class_map(section.class_map)
    elif section.class_map == "by_name":
        if not names.names:
            raise RecipeError(
                "teacher.class_map: by_name needs the names of the teacher's classes, which are unknown.",
                "Set teacher.class_names to a file of names, or write teacher.class_map with indices.",
            )
        mapping = {name: name for name in sets.classes}
    else:
        assert section.class_map is not None
        mapping = section.class_map
    return ClassMappedModel(model, resolve_class_map(mapping, names, sets.classes))


def list_output_classes(model: nn.Module, section: TeacherSection, info: WeightsInfo | None) -> list[list[str]]:
    """List the classes of the weights behind each output, as `teacher.class_map` spells them."""
    if isinstance(model, ClassMappedModel):
        names = find_class_names(model.model, section, info)
        return [[names.show(member) for member in group] for group in model.class_map.groups]
    if info is not None:
        return [[name] for name in info.classes]
    return [[str(index)] for index in range(int(model.num_classes))]  # type: ignore[arg-type]


def make_class_map_option(folder: Path, mapping: Mapping[str, str]) -> str:
    """Make the option that sets a class map; a long map is written to a file of the folder."""
    option = class_map_override(mapping)
    if len(option) <= LONGEST_ON_A_COMMAND_LINE:
        return option
    path = folder / "class_map.yaml"
    write_atomic(path, "".join(f"{json.dumps(a)}: {json.dumps(b)}\n" for a, b in mapping.items()))
    return f"--set {shlex.quote(f'teacher.class_map={path}')}"


def find_class_names(model: nn.Module, section: TeacherSection, info: WeightsInfo | None) -> ClassNames:
    """Find the number and, if known, the names of a teacher's classes."""
    count = int(model.num_classes)  # type: ignore[arg-type]
    if section.class_names is not None:
        return read_class_names(section.class_names, count)
    if info is not None:
        return ClassNames(count, info.classes)
    # A checkpoint may have timm's number of classes, but other classes.
    return find_timm_names(model) if section.checkpoint is None else ClassNames(count)


def read_class_map(path: Path) -> dict[str, str | int]:
    """Read a class map from a YAML file.

    Raises:
        RecipeError: the file is missing, or holds no class map.
    """
    where = f"teacher.class_map: {path}"
    try:
        text = read_bounded(path.expanduser(), MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise RecipeError(f"{where} cannot be read: {reason}.", _HINT) from error
    except DataError as error:
        raise RecipeError(f"teacher.class_map: {error.message}", _HINT) from error
    found = parse_yaml(text, str(path), number_keys=True)
    if found.faults:
        raise RecipeError(f"teacher.class_map: {'; '.join(map(str, found.faults))}", _HINT)
    if not isinstance(found.value, dict) or not found.value:
        raise RecipeError(f"{where} holds no mapping.", _HINT)
    wrong = [key for key, to in found.value.items() if isinstance(to, bool) or not isinstance(to, str | int)]
    if wrong:
        raise RecipeError(f"{where}: the value of '{wrong[0]}' must be the name or index of a class.", _HINT)
    return found.value


def refuse_other_classes(recipe: Recipe, folder: RunFolder, classes: Sequence[str], teacher: ClassNames) -> None:
    """Refuse a teacher with another number of classes; the hint lists commands with the options of the run.

    Raises:
        DataError: it has another number of classes, or no classifier.
    """
    if teacher.count == len(classes):
        return
    training = _make_training_options(recipe)
    ways = [
        ("fit a linear classifier on its features", "distill", "--set teacher.fit=probe"),
        ("train its classifier", "train", f"--set teacher.fit=head{training}"),
        ("train all of it", "train", f"--set teacher.fit=all{training}"),
    ]
    if teacher.count >= len(classes) and len(classes) <= _MOST_CLASSES:
        option, remark = _propose_class_map(classes, teacher)
        ways.insert(1, (f"map its classes{remark}", "distill", option))
    raise DataError(
        f"The teacher has {teacher.count} classes, the data {len(classes)}."
        if teacher.count
        else "The teacher has no classifier.",
        "One of these:\n"
        + "\n".join(f"  {way}: {make_command(recipe, folder, name, option)}" for way, name, option in ways),
    )


def make_command(recipe: Recipe, folder: RunFolder, name: str, option: str) -> str:
    """Make a command of a recipe whose teacher gets the classes of the data in another way.

    Args:
        name: of the command.
        option: that chooses the way.
    """
    # A teacher with a new classifier is built with the classes of its weights, or of the data.
    kwargs = {key: value for key, value in recipe.teacher.kwargs.items() if key != "num_classes"}
    teacher = recipe.teacher.model_copy(update={"kwargs": kwargs, "fit": None})
    options = recipe_as_options(recipe.model_copy(update={"teacher": teacher}))
    return f"dskd-compress {name} {shlex.join(options)} {option} --out {shlex.quote(str(folder.path))}"


def _make_training_options(recipe: Recipe) -> str:
    """Make the option that trains the teacher as the student, but not as long; none where all is default."""
    settings = recipe.train.model_dump(mode="json", exclude_defaults=True, exclude=_OF_LENGTH)
    return f" --set {shlex.quote(f'teacher.train={json.dumps(settings)}')}" if settings else ""


def _propose_class_map(classes: Sequence[str], teacher: ClassNames) -> tuple[str, str]:
    """Make the option, and the remark which of its indices are placeholders."""
    found = [teacher.find(name) for name in classes]
    if None not in found and len(set(found)) == len(found):
        return "--set teacher.class_map=by_name", ""
    free = iter(index for index in range(teacher.count) if index not in found)
    mapping, guessed = {}, []
    for index, name in zip(found, classes, strict=True):
        key = str(index if index is not None else next(free))
        if index is None:
            guessed.append(key)
        mapping[key] = name
    return class_map_override(mapping), f" (replace {', '.join(guessed)} by the indices of the teacher's classes)"
