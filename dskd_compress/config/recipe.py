"""The whole recipe."""

from __future__ import annotations

from typing import Annotated, Union

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

    @model_validator(mode="after")
    def _check_frozen_batch_norm(self) -> Recipe:
        if self.train.freeze_batch_norm and not self.student.pretrained and self.student.checkpoint is None:
            raise KeyConflict(
                "train.freeze_batch_norm would freeze random weights: student.pretrained is false, "
                "student.checkpoint is not set",
                "train.freeze_batch_norm=false",
            )
        return self
