"""Recipe sections of teacher and student."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from dskd_compress.config.base import KeyConflict, Positive, Section
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


class TeacherProbeSection(Section):
    """A linear classifier of the data's classes on the teacher's pooled features, in place of its own."""

    images_per_class: int | None = Field(1000, ge=1, description="training images to fit on at most; null: all")
    # Of 1e-4 to 1, 0.1 was best on ImageNet features of ten other classes, by 2 points, and leaves soft targets.
    l2: Positive = Field(0.1, description="weight of the penalty on the classifier, for standardised features")
    max_iterations: int = Field(500, ge=1, description="of L-BFGS")


class TeacherSection(ModelSection):
    """The model that teaches."""

    train: TrainSection | None = Field(
        None, description="train the teacher on the data first; none: its weights are already good"
    )
    class_map: Literal["by_name"] | Path | dict[str, str | int] | None = Field(
        None,
        description="teacher class -> data class, where the two differ: a mapping or a YAML file of names, "
        "indices or ranges such as 151-268, several of which may go to one data class; "
        "by_name: the teacher's classes that are called as the data's",
    )
    class_names: str | None = Field(
        None,
        description="names of the teacher's classes: a text file with one a line, or imagenet-1k; none: those "
        "that came with its weights",
    )
    probe: TeacherProbeSection | None = Field(
        None,
        description="fit a linear classifier of the data's classes on the teacher's features; true: with defaults",
    )
    mean: tuple[float, float, float] | None = Field(
        None, description="RGB mean in [0, 1] that it was trained with; none: what its weights or timm say"
    )
    std: tuple[Positive, Positive, Positive] | None = Field(
        None, description="RGB std that it was trained with; none: what its weights or timm say"
    )
    cache: TeacherCacheSection = TeacherCacheSection()

    @field_validator("probe", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _one_way_to_the_classes(self) -> TeacherSection:
        ways = [name for name in ("train", "class_map", "probe") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise KeyConflict(
                f"{' and '.join(ways)} each give the teacher the classes of the data; keep one of them",
                *(f"{name}=null" for name in ways),
            )
        if self.train is not None and (self.mean is not None or self.std is not None):
            raise ValueError("mean and std are those of a ready teacher; one that is trained here takes data.mean")
        if self.class_names is not None and self.class_map is None:
            raise ValueError("class_names are the names that class_map speaks of; set class_map as well")
        return self


class StudentSection(ModelSection):
    """The model that is deployed."""

    pretrained: bool = Field(False, description="start from timm's pretrained weights")
