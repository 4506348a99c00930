"""The recipe: one typed, frozen section for each concern.

A field's description is its help text: `recipes init` writes it as the comment and
`recipes schema` publishes it. Core code takes a section, never the whole recipe.
"""

from __future__ import annotations

from dskd_compress.config.data import AugmentSection, DataSection
from dskd_compress.config.dskd import DSKD_PRESETS, DskdMethod
from dskd_compress.config.methods import (
    DiffKdMethod,
    DistMethod,
    DkdMethod,
    FitNetMethod,
    KdMethod,
    LshfmMethod,
    NoneMethod,
)
from dskd_compress.config.models import (
    ModelSection,
    StudentSection,
    TeacherCacheSection,
    TeacherFit,
    TeacherProbeSection,
    TeacherSection,
)
from dskd_compress.config.recipe import NO_TEACHER, FeatureMethod, Method, Recipe
from dskd_compress.config.stages import ExportSection, ReportSection
from dskd_compress.config.train import DiagnosisSection, TrackingSection, TrainSection, TuneSection
from dskd_export.settings import KeyConflict, Section

__all__ = [
    "DSKD_PRESETS",
    "NO_TEACHER",
    "AugmentSection",
    "DataSection",
    "DiagnosisSection",
    "DiffKdMethod",
    "DistMethod",
    "DkdMethod",
    "DskdMethod",
    "ExportSection",
    "FeatureMethod",
    "FitNetMethod",
    "KdMethod",
    "KeyConflict",
    "LshfmMethod",
    "Method",
    "ModelSection",
    "NoneMethod",
    "Recipe",
    "ReportSection",
    "Section",
    "StudentSection",
    "TeacherCacheSection",
    "TeacherFit",
    "TeacherProbeSection",
    "TeacherSection",
    "TrackingSection",
    "TrainSection",
    "TuneSection",
]
