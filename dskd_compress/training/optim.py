"""Optimiser and learning-rate schedule, both timm's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dskd_compress.config import TrainSection
from dskd_compress.timm_import import import_timm
from dskd_compress.training.diagnosis import as_error, not_optimized_symptom
from dskd_export.errors import RecipeError

_POLY_POWER = 1.0  # a straight line from lr to min_lr


@dataclass
class Optimization:
    """An optimiser over a module, and its learning rate at any step."""

    optimizer: torch.optim.Optimizer
    scheduler: Any

    def set_step(self, step: int) -> float:
        """Set the learning rate for the update number `step` (0-based) and return it."""
        self.scheduler.step_update(num_updates=step)
        return float(self.optimizer.param_groups[0]["lr"])


def create_optimization(module: nn.Module, section: TrainSection, steps_per_epoch: int) -> Optimization:
    """Optimise every trainable parameter of `module`: the student and its training-only heads.

    Raises:
        RecipeError: timm knows no such optimiser.
        DiagnosisError: it does not take every trainable parameter.
    """
    import_timm()
    from timm.optim import create_optimizer_v2, list_optimizers
    from timm.scheduler import create_scheduler_v2

    if section.optimizer.lower() not in list_optimizers():
        raise RecipeError(
            f"train.optimizer: timm has no optimizer '{section.optimizer}'.",
            f"Choose one of: {', '.join(list_optimizers(exclude_filters=['apex*', 'bnb*', 'fused*']))}.",
        )
    optimizer = create_optimizer_v2(
        module,
        opt=section.optimizer,
        lr=section.lr,
        weight_decay=section.weight_decay,
        momentum=section.momentum,
        filter_bias_and_bn=not section.decay_norm_and_bias,
    )
    # Training-only heads that nobody optimises look fine and teach nothing.
    if (forgotten := not_optimized_symptom(module, optimizer)) is not None:
        raise as_error(forgotten)
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=section.scheduler,
        num_epochs=section.epochs,
        decay_epochs=section.decay_epochs,
        decay_milestones=list(section.milestones),
        # timm takes the decay rate for the power of poly, where 0.1 would hardly decay at all.
        decay_rate=_POLY_POWER if section.scheduler == "poly" else section.decay_rate,
        min_lr=section.min_lr,
        warmup_lr=section.warmup_lr,
        warmup_epochs=section.warmup_epochs,
        step_on_epochs=False,
        updates_per_epoch=steps_per_epoch,
    )
    return Optimization(optimizer, scheduler)
