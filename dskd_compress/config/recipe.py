"""The whole recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Union

from pydantic import ConfigDict, Field, model_validator

from dskd_compress.config.data import DataSection
from dskd_compress.config.dskd import DskdMethod
from dskd_compress.config.methods import (
    DiffKdMethod,
    DistMethod,
    DkdMethod,
    FitNetMethod,
    KdMethod,
    LshfmMethod,
    NoneMethod,
)
from dskd_compress.config.models import StudentSection, TeacherSection
from dskd_compress.config.stages import ExportSection, ReportSection
from dskd_compress.config.train import DiagnosisSection, TrackingSection, TrainSection, TuneSection
from dskd_export.settings import (
    BenchmarkSettings,
    BudgetSettings,
    BuildSettings,
    KeyConflict,
    Section,
    ValidateSettings,
)

NO_TEACHER = "none"
"""Name of the teacher in a recipe that has none."""

FeatureMethod = FitNetMethod | DiffKdMethod | LshfmMethod | DskdMethod
Method = Annotated[
    Union[NoneMethod, KdMethod, DkdMethod, DistMethod, FeatureMethod],
    Field(discriminator="name"),
]


class Recipe(Section):
    """One compression, from the teacher to the report."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())

    name: str = Field("custom", pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", description="name of the recipe")
    description: str = Field("", description="command, expected figures, hardware and time")
    seed: int = Field(0, ge=0, description="of weights, data order, augmentation and noise")
    data: DataSection = DataSection()
    teacher: TeacherSection
    student: StudentSection
    method: Method = DskdMethod()
    train: TrainSection = Field(TrainSection(), description="training of the student")
    tune: TuneSection | None = Field(None, description="quantisation-aware tuning; null: quantise without it")
    diagnosis: DiagnosisSection = DiagnosisSection()
    tracking: TrackingSection = TrackingSection()
    export: ExportSection = ExportSection()
    build: BuildSettings = BuildSettings()
    # `validate` is a method of pydantic models, so the attribute is named for what it holds.
    validation: ValidateSettings = Field(ValidateSettings(), alias="validate")
    budget: BudgetSettings = BudgetSettings()
    benchmark: BenchmarkSettings = BenchmarkSettings()
    report: ReportSection = ReportSection()

    @model_validator(mode="before")
    @classmethod
    def _name_no_teacher(cls, values: Any) -> Any:
        """A student that learns from the labels alone needs to name no teacher."""
        if not isinstance(values, Mapping) or not _is_without_teacher(values.get("method")):
            return values
        teacher = values.get("teacher", {})
        if not isinstance(teacher, Mapping):
            return values
        if any(teacher.get(key) is not None for key in ("name", "checkpoint", "train")):
            return values
        return {**values, "teacher": {**teacher, "name": NO_TEACHER}}

    @model_validator(mode="after")
    def _check_teacher(self) -> Recipe:
        if self.teacher.name != NO_TEACHER:
            return self
        if self.needs_teacher:
            what = f"teacher.name is '{NO_TEACHER}', and method {self.method.name} needs a teacher"
            raise KeyConflict(what, f"method.name={NoneMethod().name}")
        if self.has_teacher:
            raise ValueError(f"teacher.name is '{NO_TEACHER}', and teacher.checkpoint or teacher.train needs one")
        return self

    @model_validator(mode="after")
    def _check_frozen_batch_norm(self) -> Recipe:
        if self.train.freeze_batch_norm and self.student.pretrained is False and self.student.checkpoint is None:
            raise KeyConflict(
                "train.freeze_batch_norm would freeze random weights: student.pretrained is false, "
                "student.checkpoint is not set",
                "train.freeze_batch_norm=false",
            )
        return self

    @property
    def needs_teacher(self) -> bool:
        """Whether the method reads a teacher."""
        return not isinstance(self.method, NoneMethod)

    @property
    def has_teacher(self) -> bool:
        """Whether a teacher takes part: the method reads it, or the recipe gives one to compare the student with.

        timm's pretrained weights alone give none: they are the default, and not fetched where nothing reads them.
        """
        return self.needs_teacher or self.teacher.checkpoint is not None or self.teacher.train is not None


def _is_without_teacher(method: Any) -> bool:
    name = method.get("name") if isinstance(method, Mapping) else getattr(method, "name", None)
    return name == NoneMethod().name
