"""What a recipe holds a model to, in the terms of the package that judges. Needs no torch."""

from __future__ import annotations

from dskd_compress.config import Recipe
from dskd_compress.recipe import BundleSettings
from dskd_export.telemetry.device_name import device_name
from dskd_export.validation.judgement import Rules


def rules_of(recipe: Recipe | BundleSettings, precision: str) -> Rules:
    """Limits, budget on this device and batch sizes for a model of a precision."""
    section = recipe.validation
    return Rules(section, recipe.budget.of(precision, device_name()), section.batches)
