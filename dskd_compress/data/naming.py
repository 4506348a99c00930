"""Names in data sources: the order of classes, columns of tables."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from dskd_export.errors import DataError

VAL_NAMES = ("val", "validation", "test")


def natural_key(name: str) -> tuple[list[int | str], str]:
    """Sort key of class folders, the same order as timm's: numbers by value, letter case ignored.

    A class map that timm made for the same folders therefore fits; equal keys fall back to the name.
    """
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if position % 2 else part for position, part in enumerate(parts)], name


def hf_columns(source: str) -> tuple[str, dict[str, str]]:
    """Split `hfds/NAME?image=COLUMN&label=COLUMN` into the name and the columns that it names.

    Raises:
        DataError: something else is named.
    """
    name, _, query = source.partition("?")
    columns = dict(parse_qsl(query))
    if unknown := set(columns) - {"image", "label"}:
        raise DataError(
            f"{source}: unknown '{sorted(unknown)[0]}'.", "Only image=COLUMN and label=COLUMN are known."
        )
    return name, columns
