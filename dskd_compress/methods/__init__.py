"""Distillation methods: one file (or folder) each, one visible table here."""

from __future__ import annotations

import torch
from torch import nn

from dskd_compress.config import (
    DiffKdMethod,
    DistMethod,
    DkdMethod,
    FeatureMethod,
    FitNetMethod,
    KdMethod,
    LshfmMethod,
    Method,
    NoneMethod,
)
from dskd_compress.methods.base import MethodTask, StudentModule, Teacher
from dskd_compress.methods.diffkd import DiffKdModule
from dskd_compress.methods.dist import DistModule
from dskd_compress.methods.dkd import DkdModule
from dskd_compress.methods.dskd.task import DskdModule
from dskd_compress.methods.features import FeatureModule, FeatureTask
from dskd_compress.methods.fitnet import FitNetModule
from dskd_compress.methods.kd import KdModule
from dskd_compress.methods.lshfm import LshfmModule
from dskd_compress.methods.none import CrossEntropyModule
from dskd_compress.methods.pairing import Pair, Taps, find_taps

__all__ = ["MethodTask", "Pair", "Taps", "create_task", "find_taps", "needs_teacher", "statistics_batches"]


def needs_teacher(method: Method) -> bool:
    """Whether a method asks a teacher anything."""
    return not isinstance(method, NoneMethod)


def statistics_batches(method: Method) -> int:
    """Training batches that a method looks at before its first step."""
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
    """Put a student, a teacher and a method together.

    Args:
        method: the recipe's section.
        student: trained in place.
        pair: the student with its teacher, which is frozen in place; None where the method has none.
        label_smoothing: of the cross-entropy, in [0, 1].
        seed: of projection, denoiser and hash planes.
        device: where the training runs.

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
        return FeatureTask(_feature_module(method, student, taps, label_smoothing, seed), teacher, device)
    return MethodTask(
        _logit_module(method, student, label_smoothing), Teacher(pair.teacher, pair.adapter()), device
    )


def _logit_module(
    method: KdMethod | DkdMethod | DistMethod, student: nn.Module, label_smoothing: float
) -> StudentModule:
    if isinstance(method, KdMethod):
        return KdModule(student, method, label_smoothing)
    if isinstance(method, DkdMethod):
        return DkdModule(student, method, label_smoothing)
    return DistModule(student, method, label_smoothing)


def _feature_module(
    method: FeatureMethod, student: nn.Module, taps: Taps, label_smoothing: float, seed: int
) -> FeatureModule:
    if isinstance(method, FitNetMethod):
        return FitNetModule(student, taps.student, taps.teacher, method, label_smoothing)
    if isinstance(method, DiffKdMethod):
        return DiffKdModule(student, taps.student, taps.teacher, method, label_smoothing)
    if isinstance(method, LshfmMethod):
        return LshfmModule(student, taps.student, taps.teacher, taps.head, method, label_smoothing, seed)
    assert taps.head is not None
    return DskdModule(student, taps.student, taps.teacher, taps.head, method, label_smoothing, seed)
