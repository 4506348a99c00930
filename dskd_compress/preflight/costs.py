"""Estimate disk and memory of a run from the shapes of its models. Pure but for one pass without data."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from dskd_compress.config import Recipe, TrainSection
from dskd_compress.names import DISTILL, EXPORT, TRAIN, TUNE
from dskd_compress.precisions import list_requested_precisions
from dskd_export.documents.precision import Precision

_BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}  # of a parameter
_OTHER_MB = 20.0  # golden images, samples, report


@dataclass(frozen=True)
class ModelCost:
    """A model by its shapes.

    Attributes:
        values: number of parameters and buffers.
        saved_bytes: kept for the backward pass of one image in fp32; None: not counted.
    """

    values: int
    saved_bytes: float | None = None


def measure_cost(model: nn.Module, input_size: tuple[int, int, int] | None) -> ModelCost:
    """Count a model on the meta device.

    Args:
        input_size: channels, height, width to count what a backward pass keeps; None: it is not trained.
    """
    values = sum(tensor.numel() for tensor in model.state_dict().values())
    if input_size is None:
        return ModelCost(values)
    kept: dict[int, torch.UntypedStorage] = {}  # alive, so that no address comes twice

    def remember(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    own = {tensor.untyped_storage()._cdata for tensor in model.state_dict(keep_vars=True).values()}
    images = 2  # batch normalisation needs two
    with torch.device("meta"), saved_tensors_hooks(remember, lambda tensor: tensor):
        model.train()(torch.zeros(images, *input_size))
    return ModelCost(values, sum(one.nbytes() for key, one in kept.items() if key not in own) / images)


def estimate_disk_mb(recipe: Recipe, stages: Collection[str], teacher: int, student: int) -> float:
    """Estimate the least that stages write in MB; modules that only the training uses are not counted.

    Args:
        teacher: number of its parameters and buffers, 0 where none is exported or trained.
        student: of the student.
    """
    total = _OTHER_MB * 1e6
    if TRAIN in stages and recipe.teacher.train is not None:
        total += _estimate_training_bytes(recipe.teacher.train, teacher)
    if DISTILL in stages:
        total += _estimate_training_bytes(recipe.train, student)
    if TUNE in stages and recipe.tune is not None:
        total += 4 * student
    if EXPORT in stages:
        precisions = ("fp32", *list_requested_precisions(recipe.export))
        total += student * sum(_BYTES[precision] for precision in precisions)
        total += 4 * teacher * recipe.export.teacher
    return total / 1e6


def _estimate_training_bytes(section: TrainSection, values: int) -> float:
    """Weights, the best model, and complete states: weights, their average, optimizer."""
    state = 1 + (section.ema_decay is not None) + _count_optimizer_values(section)
    return 4.0 * values * (2 + state * section.keep_checkpoints)


def estimate_memory_mb(section: TrainSection, teacher: int, student: ModelCost) -> float:
    """Estimate the memory of a training step in MB, without modules that only the training uses.

    Args:
        teacher: number of its parameters and buffers, 0 without one.
        student: the model that is trained.
    """
    copies = 2 + (section.ema_decay is not None) + _count_optimizer_values(section)
    piece = section.batch_size / section.grad_accumulation
    kept = (student.saved_bytes or 0.0) * piece * (1.0 if section.precision == "fp32" else 0.5)
    return (4.0 * (teacher + student.values * copies) + kept) / 1e6


def _count_optimizer_values(section: TrainSection) -> int:
    """Values that the optimizer keeps for a parameter."""
    return 2 if "adam" in section.optimizer or "lamb" in section.optimizer else 1
