"""A teacher whose classes are mapped onto those of the data, as the recipe says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from dskd_compress.config import TeacherSection
from dskd_compress.data import DataSets
from dskd_compress.label_space import (
    ClassMappedModel,
    ClassNames,
    names_of_timm,
    read_class_names,
    resolve_class_map,
)
from dskd_compress.recipe import parse_yaml
from dskd_compress.recipe.yaml_text import MAX_BYTES
from dskd_compress.weights import WeightsInfo
from dskd_export.bounded import read_bounded
from dskd_export.errors import DataError, RecipeError

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
    names = _class_names(model, section, info)
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


def _class_names(model: nn.Module, section: TeacherSection, info: WeightsInfo | None) -> ClassNames:
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
