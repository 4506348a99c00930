"""Recipes: find, load, override, explain.

A recipe is a YAML file of the sections in `dskd_compress.config`. Relative paths in it
(`data.source`, `teacher.checkpoint`, `teacher.class_map`, `student.checkpoint`) count from the working
directory, as they do on the command line, not from the recipe file.
"""

from __future__ import annotations

from dskd_compress.recipe.build import recipe_from_mapping
from dskd_compress.recipe.bundle import BundleSettings, bundle_settings
from dskd_compress.recipe.explain import init_recipe, recipe_schema
from dskd_compress.recipe.files import (
    DEFAULT_RECIPE,
    RecipeInfo,
    dump_recipe,
    list_recipes,
    load_recipe,
    read_recipe_text,
    section_digests,
)
from dskd_compress.recipe.options import recipe_as_options
from dskd_compress.recipe.overrides import FlagOverride, format_override
from dskd_compress.recipe.yaml_text import parse_yaml

__all__ = [
    "DEFAULT_RECIPE",
    "BundleSettings",
    "FlagOverride",
    "RecipeInfo",
    "bundle_settings",
    "dump_recipe",
    "format_override",
    "init_recipe",
    "list_recipes",
    "load_recipe",
    "parse_yaml",
    "read_recipe_text",
    "recipe_as_options",
    "recipe_from_mapping",
    "recipe_schema",
    "section_digests",
]
