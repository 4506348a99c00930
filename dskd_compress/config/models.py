"""Recipe sections of teacher and student."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from dskd_compress.config.train import TrainSection
from dskd_export.documents.training import StudentStart
from dskd_export.settings import KeyConflict, Positive, Section


class ModelSection(Section):
    """A timm classifier."""

    name: str = Field(description="timm architecture, or hf-hub:OWNER/NAME")
    pretrained: bool = Field(True, description="start from timm's pretrained weights")
    checkpoint: Path | None = Field(
        None, description="local weights: .safetensors, or a torch file of tensors only"
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="more arguments of timm.create_model")

    @model_validator(mode="after")
    def _prefer_checkpoint(self) -> ModelSection:
        if self.checkpoint is not None and self.pretrained:
            # A checkpoint replaces the pretrained weights; loading those first would need a network.
            object.__setattr__(self, "pretrained", False)
        return self

    @property
    def start(self) -> StudentStart:
        """What the weights are before any training."""
        return "checkpoint" if self.checkpoint is not None else "pretrained" if self.pretrained else "random"


class TeacherCacheSection(Section):
    """Cache of the teacher's outputs for training images, on disk."""

    enabled: bool = Field(False, description="use the cache; needs data.augment.views or a shared folder")
    folder: Path | None = Field(
        None, description="folder shared by runs of one teacher and data set; null: in the run folder"
    )
    features: Literal["float16", "float32"] = Field(
        "float16", description="type of taps on disk: half the size, or exact; logits are always float32"
    )
    max_gb: Positive | None = Field(None, description="largest cache, 1 GB = 10^9 bytes; null: the free space")


class TeacherProbeSection(Section):
    """A linear classifier of the data's classes on the teacher's pooled features."""

    images_per_class: int | None = Field(1000, ge=1, description="most training images per class; null: all")
    # Of 1e-4 to 1, 0.1 was best on ImageNet features of ten other classes, by 2 points, and leaves soft targets.
    l2: Positive = Field(0.1, description="weight of the L2 penalty on the classifier, for standardised features")
    max_iterations: int = Field(500, ge=1, description="most iterations of L-BFGS")


class TeacherSection(ModelSection):
    """The model that teaches."""

    train: TrainSection | None = Field(
        None, description="train the teacher on the data first; null: its weights are ready"
    )
    class_map: Literal["by_name"] | Path | dict[str, str | int] | None = Field(
        None,
        description="teacher class -> data class: a mapping or a YAML file of names, indices or ranges such as "
        "151-268, several of which may map to one data class; by_name: classes of the same name",
    )
    class_names: str | None = Field(
        None,
        description="names of the teacher's classes: a text file with one per line, or imagenet-1k; null: those "
        "of its weights",
    )
    probe: TeacherProbeSection | None = Field(
        None,
        description="fit a linear classifier of the data's classes on the teacher's features; true: defaults",
    )
    mean: tuple[float, float, float] | None = Field(
        None, description="RGB mean in [0, 1] of its training; null: from its weights or timm"
    )
    std: tuple[Positive, Positive, Positive] | None = Field(
        None, description="RGB std of its training; null: from its weights or timm"
    )
    cache: TeacherCacheSection = TeacherCacheSection()

    @field_validator("probe", mode="before")
    @classmethod
    def _expand_switch(cls, value: Any) -> Any:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _check_one_way_to_classes(self) -> TeacherSection:
        ways = [name for name in ("train", "class_map", "probe") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise KeyConflict(
                f"{' and '.join(ways)} each give the teacher the classes of the data; keep one of them",
                *(f"{name}=null" for name in ways),
            )
        if self.train is not None and (self.mean is not None or self.std is not None):
            raise ValueError("mean and std are for a ready teacher; one with train uses data.mean and data.std")
        if self.class_names is not None and self.class_map is None:
            raise ValueError("class_names needs class_map; set class_map as well")
        return self


class StudentSection(ModelSection):
    """The model that is deployed."""

    pretrained: bool = Field(False, description="start from timm's pretrained weights")
