"""A recipe as canonical text and as digests: the same recipe gives the same bytes."""

from __future__ import annotations

from dskd_compress.config import Recipe, Section
from dskd_compress.recipe.yaml_text import dump_yaml
from dskd_export.files.json_text import digest


def dump_recipe(recipe: Recipe) -> str:
    """Write every key with its value, in the order of the sections; loads back to an equal recipe."""
    values = recipe.model_dump(mode="json", by_alias=True)
    return dump_yaml(values)


def section_digests(recipe: Section) -> dict[str, str]:
    """Hash each top-level key, as written in the file: key -> sha256 of its canonical JSON."""
    values = recipe.model_dump(mode="json", by_alias=True)
    return {key: digest(value) for key, value in values.items()}
