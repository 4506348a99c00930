"""Map the classes of a teacher onto those of the data."""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Mapping, Sequence

from dskd_compress.label_space.class_names import ClassNames
from dskd_export.errors import RecipeError

_RANGE = re.compile(r"(\d+)-(\d+)")
_SHOWN = 5
LONGEST_ON_A_COMMAND_LINE = 3000  # characters of a map; about a hundred classes


def resolve_class_map(
    mapping: Mapping[str, str | int], teacher: ClassNames, data_classes: Sequence[str]
) -> list[list[int]]:
    """Resolve a class map into the indices of the teacher's classes for each class of the data, ascending.

    Args:
        mapping: class of the teacher (name, index, or range of indices such as 1-3) -> class of the data
            (name or index). A name takes precedence over an index of the same spelling.
        teacher: the number and, if known, the names of its classes.
        data_classes: names in the order of the labels.

    Raises:
        RecipeError: unknown names or indices, a class of the teacher mapped to two of the data, or a class of
            the data without any; all of them are named.
    """
    labels = {name: index for index, name in enumerate(data_classes)}
    unknown, foreign, twice = [], [], []
    target: dict[int, int] = {}
    for key, value in mapping.items():
        members = _find_members(str(key), teacher)
        label = labels.get(str(value), _parse_index(str(value), len(data_classes)))
        if not members:
            unknown.append(str(key))
        if label is None:
            foreign.append(str(value))
        if not members or label is None:
            continue
        for member in members:
            if target.setdefault(member, label) != label:
                twice.append(teacher.show(member))
    faults = []
    if unknown:
        faults.append(f"the teacher has no {_list_classes(unknown)}{_suggest(unknown, teacher.names)}")
    if foreign:
        faults.append(f"the data has no {_list_classes(foreign)}{_suggest(foreign, data_classes)}")
    if twice:
        faults.append(f"the teacher's {_list_classes(twice)} map to two classes of the data")
    groups = [sorted(member for member, label in target.items() if label == k) for k in range(len(data_classes))]
    empty = [name for name, group in zip(data_classes, groups, strict=True) if not group]
    if empty and not faults:
        faults.append(f"no class of the teacher maps to the data's {_list_classes(empty)}")
    if faults:
        hint = "Write one entry `teacher class: data class` (names or indices) for every class of the data."
        if not teacher.names:
            hint += f" Use indices 0 to {teacher.count - 1}, or set teacher.class_names."
        raise RecipeError(f"teacher.class_map: {'; '.join(faults)}.", hint)
    return groups


def class_map_override(mapping: Mapping[str, str]) -> str:
    """Format a map as an option of the command line: `--set 'teacher.class_map={"0": "cat", "1": "dog"}'`.

    Keys and values are quoted: a recipe has no numeric keys, and a class called 7 is no index.
    """
    return f"--set {shlex.quote(f'teacher.class_map={json.dumps(mapping, ensure_ascii=False)}')}"


def _find_members(key: str, teacher: ClassNames) -> list[int]:
    if (named := teacher.find(key)) is not None:
        return [named]
    if (index := _parse_index(key, teacher.count)) is not None:
        return [index]
    if (span := _RANGE.fullmatch(key)) is not None:
        first, last = int(span[1]), int(span[2])
        if first <= last < teacher.count:
            return list(range(first, last + 1))
    return []


def _parse_index(text: str, count: int) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and int(text) < count else None


def _list_classes(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    shown = ", ".join(f"'{name}'" for name in unique[:_SHOWN])
    more = f" and {len(unique) - _SHOWN} more" if len(unique) > _SHOWN else ""
    return f"{'class' if len(unique) == 1 else 'classes'} {shown}{more}"


def _suggest(names: Sequence[str], known: Sequence[str]) -> str:
    close = [match for name in names[:_SHOWN] for match in difflib.get_close_matches(name, known, n=1, cutoff=0.6)]
    return f" (did you mean: {', '.join(dict.fromkeys(close))})" if close else ""
