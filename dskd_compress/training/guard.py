"""Keeps non-finite losses and gradients away from the weights, decided on the device.

A host that asked a GPU for the decision would wait for it in every step. So the update runs on a GPU in any
case, and the tensors that it changes are put back from a copy where the step was not finite. Torch's fused
optimizers decide in their kernels (`found_inf`), but round otherwise than the default ones, and few have it.
On a CPU there is nothing to wait for: the update is skipped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from dskd_compress.methods.base import MethodTask

_LARGE = 1 << 16  # elements, from which on a separate kernel costs less than a block


def spread_nonfinite(loss: Tensor) -> Tensor:
    """Make every gradient NaN where the loss is NaN or Inf, and leave it bit for bit as it is elsewhere.

    The gradients carry the fault to all processes, and one check of their norm finds all faults.
    """
    return loss * torch.where(loss.detach().isfinite(), 1.0, math.nan)


class UpdateGuard:
    """Applies updates until the first step that is not finite, and none from there on.

    The loop learns of that step up to 20 steps later. Until then weights, average, optimizer state and
    running statistics of batch norms are those of the step before it.

    Args:
        on_host: decide on the host; None: where that waits for nothing.
    """

    def __init__(self, task: MethodTask, optimizer: torch.optim.Optimizer, on_host: bool | None = None) -> None:
        self.task, self.optimizer = task, optimizer
        self.on_host = task.device.type == "cpu" if on_host is None else on_host
        self.finite = torch.ones((), dtype=torch.bool, device=task.device)
        norms = [module for module in task.module.modules() if isinstance(module, _NormBase)]
        self._statistics = HeldTensors([buffer for norm in norms for buffer in norm.buffers(recurse=False)])
        self._changed = HeldTensors([])

    def hold_statistics(self) -> None:
        """Copy the running statistics, which the forward pass of a step changes."""
        self._statistics.hold()

    def update(self, grad_norm: Tensor, step: int) -> None:
        """Update weights and average for a step, unless its gradients or earlier ones are not finite."""
        self.finite &= grad_norm.isfinite()
        if self.on_host:
            if self.finite:
                self._apply(step)
            else:
                self._statistics.restore_unless(self.finite)
            return
        tensors = list(self._changing_tensors())
        if list(map(id, tensors)) != list(map(id, self._changed.tensors)):  # the first step creates the state
            self._changed = HeldTensors(tensors)
        self._changed.hold()
        self._apply(step)
        for held in (self._changed, self._statistics):
            held.restore_unless(self.finite)

    def _apply(self, step: int) -> None:
        self.optimizer.step()
        self.task.update_ema(step=step)

    def _changing_tensors(self) -> Iterator[Tensor]:
        yield from (parameter for group in self.optimizer.param_groups for parameter in group["params"])
        for state in self.optimizer.state.values():  # counters of steps are on the host and count on
            tensors = (value for value in state.values() if isinstance(value, Tensor))
            yield from (tensor for tensor in tensors if tensor.device == self.finite.device)
        if self.task.has_ema():
            average = self.task.get_trainable_module(ema=True).module
            yield from (*average.parameters(), *average.buffers())


class HeldTensors:
    """Tensors with a copy of each; the copies of small ones are one block for each dtype, for few kernels."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self.tensors = tensors
        self._large = [(tensor, torch.empty_like(tensor)) for tensor in tensors if tensor.numel() >= _LARGE]
        self._blocks: list[tuple[list[Tensor], Tensor, list[Tensor]]] = []
        rest = [tensor for tensor in tensors if tensor.numel() < _LARGE]
        for dtype in dict.fromkeys(tensor.dtype for tensor in rest):
            small = [tensor for tensor in rest if tensor.dtype == dtype]
            block = torch.empty(sum(map(torch.numel, small)), dtype=dtype, device=tensors[0].device)
            self._blocks.append((small, block, _views_of(block, small)))

    @torch.no_grad()
    def hold(self) -> None:
        """Copy the tensors as they are now."""
        for live, copy in self._large:
            copy.copy_(live)
        for small, _, copies in self._blocks:
            torch._foreach_copy_(copies, small)

    @torch.no_grad()
    def restore_unless(self, finite: Tensor) -> None:
        """Put the copies back where `finite`, a boolean scalar on the device, is false."""
        for live, copy in self._large:
            torch.where(finite, live, copy, out=live)
        for small, block, _ in self._blocks:
            chosen = torch.empty_like(block)
            views = _views_of(chosen, small)
            torch._foreach_copy_(views, small)
            torch.where(finite, chosen, block, out=chosen)
            torch._foreach_copy_(small, views)


def _views_of(block: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    """Cut a block into tensors of the shapes and memory layouts of others."""
    views, first = [], 0
    for tensor in tensors:
        layout = torch.empty_like(tensor, device="meta")
        views.append(block.as_strided(layout.shape, layout.stride(), first))
        first += tensor.numel()
    return views
