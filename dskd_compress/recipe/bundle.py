"""The sections that apply to a bundle, which has no recipe: defaults and what the command line sets."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ConfigDict, Field

from dskd_compress.config import DataSection, ReportSection, Section
from dskd_compress.recipe.build import apply_overrides, check_settings
from dskd_compress.recipe.faults import Origins
from dskd_compress.recipe.overrides import format_override
from dskd_export.errors import UsageError
from dskd_export.settings import BenchmarkSettings, BudgetSettings, BuildSettings, ValidateSettings

MEASURING = ("validate", "budget", "benchmark", "data.max_unreadable")
"""Keys that `validate` and `benchmark` read; the rest of a recipe is about how the bundle was made."""


class BundleSettings(Section):
    """Settings of the commands that take a bundle; each key means what it means in a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())

    seed: int = Field(0, ge=0, description="of the bundle's training")
    data: DataSection = DataSection()
    build: BuildSettings = BuildSettings()
    validation: ValidateSettings = Field(ValidateSettings(), alias="validate")
    budget: BudgetSettings = BudgetSettings()
    benchmark: BenchmarkSettings = BenchmarkSettings()
    report: ReportSection = ReportSection()


def bundle_settings(
    overrides: Sequence[str], settable: Sequence[str] = MEASURING, *, seed: int = 0
) -> BundleSettings:
    """Read the settings of a command on a bundle.

    Args:
        settable: keys and sections that have a meaning for the command.

    Raises:
        RecipeError: a value is not valid.
        UsageError: a key has no meaning for the command.
    """
    for text in overrides:
        key = text.partition("=")[0].strip()
        if not any(key == name or key.startswith(f"{name}.") for name in settable):
            raise UsageError(
                f"{format_override(text)}: a bundle has no recipe to change.",
                f"What can be set here: {', '.join(settable)}.",
            )
    origins = Origins("command line")
    values, faults = apply_overrides({}, overrides, origins)
    return check_settings(BundleSettings, values, origins, faults).model_copy(update={"seed": seed})
