"""Keys and sections of the recipe, read from its models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dskd_compress.config import Section


def field_of(model: type[BaseModel], key: str | int) -> FieldInfo | None:
    """Find the field that is written as `key`; None where the section has no such key."""
    return next((info for name, info in model.model_fields.items() if key == (info.alias or name)), None)


def sections_of(model: type[BaseModel], key: str | int) -> list[type[Section]]:
    """List the sections that may stand under a key; more than one for the method, none for a plain value."""
    info = field_of(model, key)
    return list(_section_types(info.annotation)) if info is not None else []


def may_be_null(model: type[BaseModel], key: str | int) -> bool:
    """Check whether null is a value of a key, and not just an empty section."""
    info = field_of(model, key)
    return info is not None and type(None) in get_args(info.annotation)


def keys_of(model: type[BaseModel]) -> list[str]:
    """List the keys of a section as they are written."""
    return [info.alias or name for name, info in model.model_fields.items()]


def _section_types(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _section_types(argument)


def tag_of(section: type[Section]) -> str:
    """Return the `name:` that selects one section of several."""
    return str(section.model_fields["name"].default)


def all_sections(
    model: type[BaseModel], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """Walk a section and all below it, each with the keys that lead to it."""
    yield path, model
    for key in keys_of(model):
        for section in sections_of(model, key):
            yield from all_sections(section, (*path, key))
