"""Recipe sections of teacher and student."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from dskd_compress.config.base import Positive, Section
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


class TeacherCacheSection(Section):
    """What the teacher says of a training image, kept on disk."""

    enabled: bool = Field(False, description="keep it; needs data.augment.views, or a folder that runs share")
    folder: Path | None = Field(
        None, description="kept here, for every run with this teacher and these images; none: in the run folder"
    )
    features: Literal["float16", "float32"] = Field(
        "float16", description="of taps on disk: half the room, or the exact number; logits are always float32"
    )
    max_gb: Positive | None = Field(None, description="largest cache, 1 GB = 10^9 bytes; none: what the disk has")


class TeacherSection(ModelSection):
    """The model that teaches."""

    train: TrainSection | None = Field(
        None, description="train the teacher on the data first; none: its weights are already good"
    )
    cache: TeacherCacheSection = TeacherCacheSection()


class StudentSection(ModelSection):
    """The model that is deployed."""

    pretrained: bool = Field(False, description="start from timm's pretrained weights")
