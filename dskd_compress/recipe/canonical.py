"""A recipe as canonical text and as digests: the same recipe gives the same bytes."""

from __future__ import annotations

import hashlib
import json

from dskd_compress.config import Recipe, Section
from dskd_compress.recipe.yaml_text import dump_yaml


def dump_recipe(recipe: Recipe) -> str:
    """Every key with its value, in the order of the sections; loads back to an equal recipe."""
    values = recipe.model_dump(mode="json", by_alias=True)
    return dump_yaml(values)


def section_digests(recipe: Section) -> dict[str, str]:
    """Top-level key, as written in the file -> sha256 of its canonical JSON."""
    values = recipe.model_dump(mode="json", by_alias=True)
    return {key: hashlib.sha256(_canonical_json(value)).hexdigest() for key, value in values.items()}


def _canonical_json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
