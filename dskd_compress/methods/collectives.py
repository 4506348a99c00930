"""Reductions over the processes of a training, for what a method takes over the whole batch.

`torch.distributed.nn.functional.all_reduce` has the same gradient and is deprecated since torch 2.13.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

Function = TypeVar("Function", bound=Callable[..., Any])


def not_compiled(function: Function) -> Function:
    """Exclude a function from `train.compile`."""
    result: Function = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return result


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


@not_compiled
def all_reduce_mean(value: Tensor) -> Tensor:
    """Average a value over all processes, without a gradient.

    For what is not itself a mean of losses, for example a scale that is taken from the batch.
    """
    if not _is_distributed():
        return value.detach()
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


@not_compiled
def all_reduce_sum(value: Tensor) -> Tensor:
    """Add up a value over all processes, with its gradient.

    For a loss that is not a mean over images, for example a correlation over the batch. Every process then
    has the loss of the whole batch, and the mean of the processes' gradients is that of this loss.
    """
    if not _is_distributed():
        return value
    total: Tensor = _AllReduceSum.apply(value)  # type: ignore[no-untyped-call]
    return total


class _AllReduceSum(torch.autograd.Function):
    """Every process gets the sum, so every process's gradient reaches every summand."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return _AllReduceSum.forward(context, gradients[0])
