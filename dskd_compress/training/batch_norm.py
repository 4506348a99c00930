"""Batch norm over the images of several processes on the CPU, where torch's own works on GPUs only."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dskd_compress.methods.collectives import all_reduce_sum
from dskd_compress.timm_import import import_timm

import_timm()  # before anything of timm: it may need torchvision to be mended first

from timm.layers import BatchNormAct2d  # noqa: E402


def _mean(value_C: Tensor) -> Tensor:
    """Average over all processes; gradients flow back to all of them."""
    return all_reduce_sum(value_C) / distributed.get_world_size()


def _like(value_C: Tensor, feat: Tensor) -> Tensor:
    """Per-channel values, shaped to broadcast over BxCx..."""
    return value_C.view(1, -1, *[1] * (feat.ndim - 2))


class CpuSyncBatchNorm(_BatchNorm):
    """What `nn.SyncBatchNorm` is on GPUs, made of differentiable sums over the processes; slow, and exact.

    Each process has the same number of images. BxC or BxCx... -> the same.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any shape will do that has channels."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise by the mean and variance over all processes."""
        if not (self.training and distributed.is_initialized()):
            return super().forward(input)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        values = input.float()  # statistics of half precision would lose what the sums need
        mean_C = _mean(values.mean(axes))
        centred = values - _like(mean_C, values)
        var_C = _mean(centred.square().mean(axes))  # of the differences: E[x^2] - m^2 cancels
        self._follow(mean_C.detach(), var_C.detach(), values.numel() // values.shape[1])
        out = centred * _like((var_C + self.eps).rsqrt(), values)
        if self.affine:
            out = out * _like(self.weight, values) + _like(self.bias, values)
        return out.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean_C: Tensor, var_C: Tensor, count: int) -> None:
        """Move the running statistics, with the unbiased variance."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        weight = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        count *= distributed.get_world_size()
        self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), weight)
        self.running_var.lerp_((var_C * count / (count - 1)).to(self.running_var.dtype), weight)


class CpuSyncBatchNormAct(CpuSyncBatchNorm):
    """The same, with timm's dropout and activation behind it."""

    act: nn.Module
    drop: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        """Normalise, drop, activate."""
        out: Tensor = self.act(self.drop(super().forward(input)))
        return out


def synchronise_on_cpu(module: nn.Module) -> None:
    """Let the batch norms within a module see the images of all processes."""
    for child in module.modules():
        # Only `forward` differs: parameters, buffers and names stay, and all who hold them.
        if isinstance(child, BatchNormAct2d):
            child.__class__ = CpuSyncBatchNormAct
        elif isinstance(child, _BatchNorm):
            child.__class__ = CpuSyncBatchNorm
