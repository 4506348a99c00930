"""Recipe sections of teacher and student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from dskd_compress.config.base import Section
from dskd_compress.config.train import TrainSection


class ModelSection(Section):
    """A timm classifier."""

    name: str = Field(description="timm architecture, or hf-hub:OWNER/NAME")
    pretrained: bool = Field(True, description="start from timm's pretrained weights")
    checkpoint: Path | None = Field(
        None, description="local weights: .safetensors, or a torch file of tensors only"
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="more arguments of timm.create_model")

    @model_validator(mode="after")
    def _one_source(self) -> ModelSection:
        if self.checkpoint is not None and self.pretrained:
            # A checkpoint replaces the pretrained weights; asking the hub for them first would need a network.
            object.__setattr__(self, "pretrained", False)
        return self


class TeacherSection(ModelSection):
    """The model that teaches."""

    train: TrainSection | None = Field(
        None, description="train the teacher on the data first; none: its weights are already good"
    )


class StudentSection(ModelSection):
    """The model that is deployed."""

    pretrained: bool = Field(False, description="start from timm's pretrained weights")
