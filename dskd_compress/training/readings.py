"""The numbers of a few steps, fetched from the device and from the other processes at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dskd_compress.training.distributed import Group
from dskd_export.documents.training import StepRecord

_TERM, _MONITOR = "term ", "monitor "


@dataclass
class StepNumbers:
    """What a step leaves on the device: `values` are means over this process's images."""

    images: int
    learning_rate: float
    values: dict[str, Tensor]

    @classmethod
    def of(
        cls,
        images: int,
        learning_rate: float,
        grad_norm: Tensor,
        pieces: list[tuple[float, dict[str, Any]]],
    ) -> StepNumbers:
        """From what the task gave for each piece of a step, and the piece's share of the images."""
        values = {"grad_norm": grad_norm}
        for share, result in pieces:
            named = {
                "loss": result["loss"],
                **{_TERM + name: value for name, value in result["terms"].items()},
                **{_MONITOR + name: value for name, value in result["monitors"].items()},
            }
            for name, value in named.items():
                value = value.detach().float() * share
                values[name] = values[name] + value if name in values else value
        return cls(images, learning_rate, values)


@dataclass(frozen=True)
class Reading:
    """A step's numbers as a person reads them, means over all processes."""

    images: int
    learning_rate: float
    grad_norm: float
    losses: dict[str, float]
    monitors: dict[str, float]

    def nonfinite(self) -> tuple[str, float] | None:
        """The first loss term that is NaN or Inf, or the loss where only their sum is."""
        bad = [item for item in self.losses.items() if not math.isfinite(item[1])]
        return next((item for item in bad if item[0] != "loss"), bad[0] if bad else None)

    def record(self, step: int, epoch: int, images_per_s: float) -> StepRecord:
        """For the log."""
        return StepRecord(
            step=step,
            epoch=epoch,
            losses=self.losses,
            grad_norm=self.grad_norm if math.isfinite(self.grad_norm) else None,  # fp16: the scaler skips it
            learning_rate=self.learning_rate,
            images_per_s=images_per_s,
            monitors=self.monitors,
        )


def read(pending: list[StepNumbers], group: Group, stop: bool) -> tuple[list[Reading], bool]:
    """Fetch the numbers of some steps, the same for all processes; and whether any of them wants to stop."""
    table = [value for numbers in pending for value in numbers.values.values()]
    wish = torch.tensor(float(stop), device=table[0].device)
    *flat, wishes = group.mean(torch.stack([*(value.float() for value in table), wish])).tolist()
    values = iter(flat)
    readings = []
    for numbers in pending:
        named = {name: next(values) for name in numbers.values}
        readings.append(
            Reading(
                images=numbers.images * group.place.world_size,
                learning_rate=numbers.learning_rate,
                grad_norm=named["grad_norm"],
                losses={
                    "loss": named["loss"],
                    **{k.removeprefix(_TERM): v for k, v in named.items() if k.startswith(_TERM)},
                },
                monitors={k.removeprefix(_MONITOR): v for k, v in named.items() if k.startswith(_MONITOR)},
            )
        )
    return readings, wishes > 0
