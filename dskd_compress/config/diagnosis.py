"""Recipe section of the watch over a training."""

from __future__ import annotations

from pydantic import Field

from dskd_compress.config.base import Section
from dskd_export.documents.training import FindingKind


class DiagnosisSection(Section):
    """The watch over the distillation: faults that would teach nothing are told within 100 steps."""

    enabled: bool = Field(True, description="look for faults; the student is the same either way")
    every_steps: int = Field(
        50,
        ge=1,
        description="steps between two close looks, after those of steps 1 to 3; with train.compile each costs a "
        "backward pass a loss term",
    )
    stop_on: tuple[FindingKind, ...] = Field(
        ("teacher_mode", "teacher_not_frozen", "teacher_changed", "not_optimized", "class_order"),
        description="faults that end the training; the others are warnings",
    )
