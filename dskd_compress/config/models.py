"""Recipe sections of teacher and student."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from dskd_compress.config.train import TrainSection
from dskd_export.documents.training import StudentStart
from dskd_export.settings import KeyConflict, Positive, Section
from dskd_export.spec import Interpolation

TeacherFit = Literal["none", "probe", "head", "all"]
"""How a teacher gets the classes of the data."""

# The settings of each choice. Without fit, settings mean the first choice that uses them.
_FITS_THAT_USE: dict[str, tuple[TeacherFit, ...]] = {
    "train": ("all", "head"),
    "probe": ("probe",),
    "class_map": ("none",),
    "class_names": ("none",),
}


def drop_other_fits(teacher: dict[str, Any], keep: Container[str]) -> None:
    """Remove the settings of other choices from a teacher section, so that a newly chosen `fit` applies.

    Args:
        teacher: as written; its `fit` null means that the choice is to be made anew.
        keep: keys that stay whatever the choice.
    """
    for key, fits in _FITS_THAT_USE.items():
        if (teacher.get("fit") or "none") not in fits and key in teacher and key not in keep:
            del teacher[key]


class ModelSection(Section):
    """A timm classifier."""

    name: str = Field(description="timm architecture, or hf-hub:OWNER/NAME")
    pretrained: bool | Literal["auto"] = Field(True, description="start from timm's pretrained weights")
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


_OWN_INPUT = ("input_size", "interpolation", "crop_pct", "mean", "std")
"""How a ready teacher gets its images."""


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

    pretrained: bool = Field(True, description="start from timm's pretrained weights")
    fit: TeacherFit | None = Field(
        None,
        description="how it gets the classes of the data. none: used as it is; probe: a linear classifier on its "
        "frozen features; head: train its classifier; all: train everything; null: what train, probe or class_map "
        "says, else probe where the classes differ",
    )
    train: TrainSection | None = Field(
        None, description="training of the teacher before the distillation, for fit head and all"
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
        None, description="the classifier that fit probe fits on the teacher's features; true: defaults"
    )
    input_size: int | None = Field(
        None,
        ge=8,
        description="side of its images in pixels; null: the student's, or its own if that is fixed",
    )
    interpolation: Interpolation | None = Field(
        None, description="of its evaluation on its own input; null: from its weights or timm"
    )
    crop_pct: float | None = Field(
        None, gt=0, le=4, description="centre crop of its evaluation; null: from its weights or timm"
    )
    accuracy: float | None = Field(
        None,
        description="top-1 that it is known to reach on these validation images, as a fraction: a teacher that is "
        "measured clearly below is refused before the training",
    )
    mean: tuple[float, float, float] | None = Field(
        None, description="RGB mean in [0, 1] of its training; null: from its weights or timm"
    )
    std: tuple[Positive, Positive, Positive] | None = Field(
        None, description="RGB std of its training; null: from its weights or timm"
    )
    cache: TeacherCacheSection = TeacherCacheSection()

    @field_validator("accuracy")
    @classmethod
    def _check_fraction(cls, value: float | None) -> float | None:
        if value is not None and not 0 < value <= 1:
            fraction = f": write {value / 100:.6g}" if 1 < value <= 100 else ""
            raise ValueError(f"must be a fraction above 0, at most 1{fraction}")
        return value

    @field_validator("probe", mode="before")
    @classmethod
    def _expand_switch(cls, value: Any) -> Any:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _check_one_way_to_classes(self) -> TeacherSection:
        if self.fit is None:
            self._check_one_section()
        else:
            self._check_settings_of_fit(self.fit)
        if self.train is not None:
            # Frozen features keep the normalisation that they were trained with.
            unused = [name for name in _OWN_INPUT if self.fit != "head" or name not in ("mean", "std")]
            for name in unused:
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is for a ready teacher; one that is trained here uses data.{name}")
        random = not self.pretrained and self.checkpoint is None
        if self.train is not None and self.train.freeze_batch_norm and random:
            raise KeyConflict(
                "train.freeze_batch_norm would freeze random weights: pretrained is false, checkpoint is not set",
                "train.freeze_batch_norm=false",
            )
        if self.class_names is not None and self.class_map is None:
            raise ValueError("class_names needs class_map; set class_map as well")
        return self

    def _check_one_section(self) -> None:
        ways = [name for name in ("train", "class_map", "probe") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise KeyConflict(
                f"{' and '.join(ways)} each give the teacher the classes of the data; keep one of them",
                *(f"{name}=null" for name in ways),
            )

    def _check_settings_of_fit(self, fit: TeacherFit) -> None:
        """Refuse the settings of another choice, and add the defaults of this one."""
        for name, fits in _FITS_THAT_USE.items():
            if fit not in fits and getattr(self, name) is not None:
                raise KeyConflict(
                    f"fit {fit} does not use {name}, which is for fit {' and '.join(reversed(fits))}",
                    f"fit={fits[0]}",
                    f"{name}=null",
                )
        if fit == "probe" and self.probe is None:
            object.__setattr__(self, "probe", TeacherProbeSection())
        if fit in ("head", "all") and self.train is None:
            object.__setattr__(self, "train", TrainSection())

    @property
    def chosen_fit(self) -> TeacherFit | None:
        """How it gets the classes of the data; None: to be decided once its classes are known."""
        if self.fit is not None:
            return self.fit
        return next((fits[0] for name, fits in _FITS_THAT_USE.items() if getattr(self, name) is not None), None)


class StudentSection(ModelSection):
    """The model that is deployed."""

    pretrained: bool | Literal["auto"] = Field(
        "auto",
        description="start from timm's pretrained weights; auto: those of the local cache or the hub, else random "
        "ones with a warning",
    )
