"""Teachers of other classes than the data: a class map, or a fitted classifier."""

from __future__ import annotations

from dskd_compress.label_space.class_map import LONGEST_ON_A_COMMAND_LINE, class_map_override, resolve_class_map
from dskd_compress.label_space.class_names import ClassNames, find_timm_names, names_for_device, read_class_names
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
    "find_timm_names",
    "fit_linear_probe",
    "names_for_device",
    "read_class_names",
    "resolve_class_map",
]
