"""Settings from outside a recipe: `--set key=value`, flags that stand for keys, keywords of the Python API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dskd_compress.config import Recipe
from dskd_compress.recipe.sections import sections_of


class FlagOverride(str):
    """`key=value` that a flag stands for."""

    flag: str  # as it was typed, for example `--epochs 1`; errors show it

    def __new__(cls, text: str, flag: str) -> FlagOverride:
        """Make one of the setting and the flag."""
        made = super().__new__(cls, text)
        made.flag = flag
        return made

    @classmethod
    def of_value(cls, key: str, value: Any, flag: str) -> FlagOverride:
        """Make one of a plain value."""
        return cls(f"{key}={json.dumps(value, default=_plain)}", flag)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value)


def format_override(override: str) -> str:
    """Format an override as it stands on the command line."""
    return override.flag if isinstance(override, FlagOverride) else f"--set {override}"


def overrides_from_keywords(keywords: Mapping[str, Any]) -> list[str]:
    """Turn nested sections into overrides: `{"train": {"epochs": 3}}` becomes `train.epochs=3`.

    A key that a section does not name keeps its value.
    """
    return list(_flatten(Recipe, keywords, ""))


def _flatten(model: type[BaseModel] | None, values: Mapping[str, Any], above: str) -> Iterator[FlagOverride]:
    # Choosing a method or a preset starts its section anew: it comes before the section's other keys.
    for key in sorted(values, key=lambda key: key not in ("name", "preset")):
        value, path = values[key], f"{above}{key}"
        below = sections_of(model, key) if model is not None else []
        if below and isinstance(value, Mapping) and value:
            yield from _flatten(below[0] if len(below) == 1 else None, value, f"{path}.")
        else:
            yield FlagOverride.of_value(path, value, f"{path}={value!r}")
