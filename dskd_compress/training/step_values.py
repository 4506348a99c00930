"""The numbers of a few steps, fetched together from the device and averaged over the processes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dskd_compress.training.distributed import Group
from dskd_export.documents.training import StepRecord


@dataclass
class DeviceStep:
    """The numbers of a step on the device: `values` are means over this process's images, by kind and name."""

    images: int
    learning_rate: float
    values: dict[tuple[str, str], Tensor]

    @classmethod
    def of(
        cls,
        images: int,
        learning_rate: float,
        grad_norm: Tensor,
        results: list[tuple[float, dict[str, Any]]],
    ) -> DeviceStep:
        """Average the task's results over the micro-batches of a step, with the weight of each."""
        values = {("gradient", "norm"): grad_norm}
        for weight, result in results:
            named = {("loss", name): value for name, value in {"loss": result["loss"], **result["terms"]}.items()}
            named |= {("monitor", name): value for name, value in result["monitors"].items()}
            for key, value in named.items():
                value = value.detach().float() * weight
                values[key] = values[key] + value if key in values else value
        return cls(images, learning_rate, values)


@dataclass(frozen=True)
class StepValues:
    """The numbers of a step on the host, means over all processes."""

    images: int
    learning_rate: float
    grad_norm: float
    losses: dict[str, float]
    monitors: dict[str, float]

    def nonfinite(self, scaled: bool) -> str | None:
        """Name the first number of the losses and the gradient that is NaN or Inf.

        Args:
            scaled: whether a loss scaler handles non-finite gradients.
        """
        bad = {name: value for name, value in self.losses.items() if not math.isfinite(value)}
        term = next((name for name in bad if name != "loss"), next(iter(bad), None))
        if term is not None:
            return f"the loss term '{term}' is {bad[term]}"
        if not scaled and not math.isfinite(self.grad_norm):
            return f"the gradient's norm is {self.grad_norm}"
        return None

    def record(self, step: int, epoch: int, images_per_s: float, data_wait: float, total_steps: int) -> StepRecord:
        """Convert to a record of the log."""
        return StepRecord(
            step=step,
            epoch=epoch,
            losses=self.losses,
            grad_norm=self.grad_norm if math.isfinite(self.grad_norm) else None,  # fp16: the scaler skips it
            learning_rate=self.learning_rate,
            images_per_s=images_per_s,
            data_wait=data_wait,
            total_steps=total_steps,
            monitors=self.monitors,
        )


def fetch(pending: list[DeviceStep], group: Group, stop: bool) -> tuple[list[StepValues], bool]:
    """Fetch the numbers of some steps, the same in all processes, and whether any of them wants to stop."""
    table = [value for step in pending for value in step.values.values()]
    wish = torch.tensor(float(stop), device=table[0].device)
    *flat, wishes = group.all_reduce_mean(torch.stack([*(value.float() for value in table), wish])).tolist()
    numbers = iter(flat)
    steps = []
    for step in pending:
        kinds: dict[str, dict[str, float]] = {"gradient": {}, "loss": {}, "monitor": {}}
        for kind, name in step.values:
            kinds[kind][name] = next(numbers)
        images = step.images * group.process.world_size
        norm = kinds["gradient"]["norm"]
        steps.append(StepValues(images, step.learning_rate, norm, kinds["loss"], kinds["monitor"]))
    return steps, wishes > 0
