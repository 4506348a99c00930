"""A teacher whose classes are mapped onto those of the data, as the recipe says."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from dskd_compress.config import TeacherSection
from dskd_compress.data import DataSets
from dskd_compress.label_space import (
    LONGEST_ON_A_COMMAND_LINE,
    ClassMappedModel,
    ClassNames,
    class_map_override,
    names_of_timm,
    read_class_names,
    resolve_class_map,
)
from dskd_compress.recipe import parse_yaml
from dskd_compress.recipe.yaml_text import MAX_BYTES
from dskd_compress.weights import WeightsInfo
from dskd_export.errors import DataError, RecipeError
from dskd_export.files.atomic import write_atomic
from dskd_export.files.bounded import read_bounded

_HINT = "Write one line a class of the teacher, `teacher class: data class`, of names or indices."


def map_classes(
    model: nn.Module, section: TeacherSection, info: WeightsInfo | None, sets: DataSets
) -> ClassMappedModel:
    """Wrap a teacher.

    Args:
        model: as its weights are.
        section: `class_map` is set.
        info: of its weights, where dskd-compress wrote them.

    Raises:
        RecipeError: the map names classes that do not exist, or leaves out some of the data.
    """
    names = class_names_of(model, section, info)
    mapping: Mapping[str, str | int]
    if isinstance(section.class_map, Path):
        mapping = read_class_map(section.class_map)
    elif section.class_map == "by_name":
        if not names.names:
            raise RecipeError(
                "teacher.class_map: by_name, but the names of the teacher's classes are not known.",
                "Set teacher.class_names, or write the map with indices.",
            )
        mapping = {name: name for name in sets.classes}
    else:
        assert section.class_map is not None
        mapping = section.class_map
    return ClassMappedModel(model, resolve_class_map(mapping, names, sets.classes))


def outputs_of(model: nn.Module, section: TeacherSection, info: WeightsInfo | None) -> list[list[str]]:
    """The teacher's own classes behind each of its outputs, as `teacher.class_map` spells them."""
    if isinstance(model, ClassMappedModel):
        names = class_names_of(model.model, section, info)
        return [[names.shown(member) for member in group] for group in model.class_map.groups]
    if info is not None:
        return [[name] for name in info.classes]
    return [[str(index)] for index in range(int(model.num_classes))]  # type: ignore[arg-type]


def class_map_option(folder: Path, mapping: Mapping[str, str]) -> str:
    """The option that sets a class map; one that is too long for a command line goes to a file of the folder."""
    option = class_map_override(mapping)
    if len(option) <= LONGEST_ON_A_COMMAND_LINE:
        return option
    path = folder / "class_map.yaml"
    write_atomic(path, "".join(f"{json.dumps(a)}: {json.dumps(b)}\n" for a, b in mapping.items()))
    return f"--set {shlex.quote(f'teacher.class_map={path}')}"


def class_names_of(model: nn.Module, section: TeacherSection, info: WeightsInfo | None) -> ClassNames:
    """How many classes a teacher has, and their names where they are known."""
    count = int(model.num_classes)  # type: ignore[arg-type]
    if section.class_names is not None:
        return read_class_names(section.class_names, count)
    if info is not None:
        return ClassNames(count, info.classes)
    # Weights of somebody else may have timm's number of classes and other classes.
    return names_of_timm(model) if section.checkpoint is None else ClassNames(count)


def read_class_map(path: Path) -> dict[str, str | int]:
    """The mapping in a YAML file.

    Raises:
        RecipeError: no such file, or it holds something else.
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
    wrong = [
        key for key, value in found.value.items() if isinstance(value, bool) or not isinstance(value, str | int)
    ]
    if wrong:
        raise RecipeError(f"{where}: the value of '{wrong[0]}' is not the name or index of a class.", _HINT)
    return found.value
