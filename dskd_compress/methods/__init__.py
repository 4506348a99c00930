"""Distillation methods: one file or folder each, all listed here."""

from __future__ import annotations

import torch
from torch import nn

from dskd_compress.config import (
    DiffKdMethod,
    DistMethod,
    DkdMethod,
    DskdMethod,
    FeatureMethod,
    FitNetMethod,
    KdMethod,
    LshfmMethod,
    Method,
    NoneMethod,
)
from dskd_compress.methods.base import LogitModule, MethodTask, StudentModule, Teacher
from dskd_compress.methods.diffkd import DiffKdModule
from dskd_compress.methods.dist import DistModule
from dskd_compress.methods.dkd import DkdModule
from dskd_compress.methods.dskd.method import DskdModule
from dskd_compress.methods.fitnet import FitNetModule
from dskd_compress.methods.kd import KdModule
from dskd_compress.methods.lshfm import LshfmModule
from dskd_compress.methods.none import ClassifierModule, CrossEntropyModule
from dskd_compress.methods.pairing import Pair, Taps, find_taps

__all__ = ["MethodTask", "Pair", "Taps", "create_head_task", "create_task", "find_taps", "statistics_batches"]


def statistics_batches(method: Method) -> int:
    """Count the training batches that a method needs before its first step."""
    return method.stats_batches if isinstance(method, FeatureMethod) else 0


def create_task(
    method: Method,
    student: nn.Module,
    pair: Pair | None,
    *,
    label_smoothing: float,
    seed: int,
    device: torch.device,
) -> MethodTask:
    """Create the task of a method for a student and its teacher.

    Args:
        student: trained in place.
        pair: the student with its teacher, which is frozen in place; None where the method has none.
        label_smoothing: of the cross-entropy, in [0, 1].
        seed: of projection, denoiser and hash planes.

    Raises:
        ModelError: the classes of teacher and student differ.
        TapError: a model lacks the tap that the method reads.
    """
    torch.manual_seed(seed)
    if isinstance(method, NoneMethod) or pair is None:
        return MethodTask(CrossEntropyModule(student, label_smoothing), None, device)
    pair.check_classes()
    if isinstance(method, FeatureMethod):
        taps = find_taps(method, pair)
        teacher = Teacher(pair.teacher, pair.adapter(), taps.teacher, taps.head)
        module = _create_feature_module(method, student, taps, label_smoothing, seed)
        return MethodTask(module, teacher, device, taps.student)
    module = LOGIT_MODULES[type(method)](student, method, label_smoothing)
    return MethodTask(module, Teacher(pair.teacher, pair.adapter()), device)


def create_head_task(model: nn.Module, *, label_smoothing: float, device: torch.device) -> MethodTask:
    """Create the task that trains the classifier of a model, with cross-entropy; the rest is frozen in place.

    Raises:
        ModelError: timm names no classifier of it.
    """
    return MethodTask(ClassifierModule(model, label_smoothing), None, device)


LOGIT_MODULES: dict[type, type[LogitModule]] = {KdMethod: KdModule, DkdMethod: DkdModule, DistMethod: DistModule}


def _create_feature_module(
    method: FeatureMethod, student: nn.Module, taps: Taps, label_smoothing: float, seed: int
) -> StudentModule:
    match method:
        case FitNetMethod():
            return FitNetModule(student, taps, method, label_smoothing)
        case DiffKdMethod():
            return DiffKdModule(student, taps, method, label_smoothing)
        case LshfmMethod():
            return LshfmModule(student, taps, method, label_smoothing, seed)
        case DskdMethod():
            return DskdModule(student, taps, method, label_smoothing, seed)
