"""What happened to the model on its way, one record a step."""

from __future__ import annotations

from pydantic import Field

from dskd_export.documents.base import Document

NOTHING_TO_DO = "nothing to do"


class PassFacts(Document):
    """One step of an export: applied and proven equal, or left out with its reason."""

    name: str
    applied: bool
    max_abs_relative: float | None = Field(
        default=None,
        description="largest difference of the output / largest output, against the model before export",
    )
    reason: str | None = Field(default=None, description="why it was left out")


def rounded(value: float) -> float:
    """Two digits: more of a rounding error says nothing, and differs between machines."""
    return float(f"{value:.1e}")
