"""A recipe as the options of a command line that makes it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from dskd_compress.config import Recipe
from dskd_compress.recipe.sections import field_of, may_be_null, sections_of, tag_of
from dskd_compress.recipe.yaml_text import dump_yaml

_FLAGS = {
    ("teacher", "name"): "--teacher",
    ("teacher", "checkpoint"): "--teacher-checkpoint",
    ("student", "name"): "--student",
    ("data", "source"): "--data",
    ("data", "input_size"): "--input-size",
}
_LEFT_OUT = (("name",), ("description",))


def recipe_as_options(recipe: Recipe) -> list[str]:
    """List the arguments of `distill` or `train` that give a recipe: `["--teacher", "resnet34", ...]`.

    Only what differs from the defaults is written, and the keys that have an option have that.
    """
    flags: dict[str, str] = {}
    settings: list[str] = []
    for path, value in _changed(Recipe, recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True), ()):
        replaced = path == ("teacher", "pretrained") and recipe.teacher.checkpoint is not None
        if replaced or path in _LEFT_OUT:
            continue
        if path in _FLAGS:
            flags[_FLAGS[path]] = str(value)
        else:
            settings += ["--set", f"{'.'.join(path)}={dump_yaml(value, flow=True)}"]
    flags.setdefault("--data", recipe.data.source)
    method = [] if tag_of(type(recipe.method)) == "dskd" else ["--set", f"method.name={recipe.method.name}"]
    in_order = [part for name in _FLAGS.values() if name in flags for part in (name, flags[name])]
    return [*in_order, *method, *settings]


def _changed(
    model: type[BaseModel] | None, values: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in values.items():
        here = (*path, key)
        below = sections_of(model, key) if model is not None else []
        field = field_of(model, key) if model is not None else None
        by_name = field is not None and "dict" in str(field.annotation)  # its keys are the user's own
        if isinstance(value, Mapping) and value and below and not by_name:
            yield from _changed(below[0] if len(below) == 1 else None, value, here)
        elif value != {} or model is None or may_be_null(model, key):  # a section of defaults exists anyway
            yield here, value
