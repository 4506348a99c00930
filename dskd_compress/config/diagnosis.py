"""Recipe section of the diagnosis of a training."""

from __future__ import annotations

from pydantic import Field

from dskd_compress.config.base import Section
from dskd_export.documents.training import FindingKind


class DiagnosisSection(Section):
    """Diagnosis of a distillation: reports, within 100 steps, faults that prevent learning."""

    enabled: bool = Field(True, description="check for faults; the student does not change")
    every_steps: int = Field(
        50,
        ge=1,
        description="steps between two full checks, after steps 1 to 3; with train.compile each costs one "
        "backward pass per loss term",
    )
    stop_on: tuple[FindingKind, ...] = Field(
        ("teacher_mode", "teacher_not_frozen", "teacher_changed", "not_optimized", "class_order"),
        description="faults that end the training; the others are warnings",
    )
