"""Teachers that know other classes than the data: their classes mapped, or a classifier of the data's fitted."""

from __future__ import annotations

from dskd_compress.label_space.class_map import LONGEST_ON_A_COMMAND_LINE, class_map_override, resolve_class_map
from dskd_compress.label_space.class_names import ClassNames, names_for_device, names_of_timm, read_class_names
from dskd_compress.label_space.linear_probe import FittedProbe, fit_linear_probe
from dskd_compress.label_space.models import ClassMap, ClassMappedModel, ProbedModel

__all__ = [
    "LONGEST_ON_A_COMMAND_LINE",
    "ClassMap",
    "ClassMappedModel",
    "ClassNames",
    "FittedProbe",
    "ProbedModel",
    "class_map_override",
    "fit_linear_probe",
    "names_for_device",
    "names_of_timm",
    "read_class_names",
    "resolve_class_map",
]
