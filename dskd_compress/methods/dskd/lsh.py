"""Locality-sensitive-hashing loss: the student's feature shall fall on the target's side of random planes.

After LSHFM, "Distilling knowledge by mimicking features" (arXiv 2011.01424, equations 5 to 7),
with the denoised student feature in the teacher's place.

Shape suffixes: B features, C channels, M hash bits.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def default_hash_bits(channels: int) -> int:
    """32 bits a channel for up to 256 channels, else 2048, as LSHFM has for CIFAR and ImageNet."""
    return 32 * channels if channels <= 256 else 2048


def hash_planes(channels: int, bits: int, std: float, seed: int) -> Tensor:
    """W, the normals of the planes: MxC, rows from N(0, std^2), the same for the same seed.

    In the standardised space std = 1/sqrt(C) gives hash logits of about unit variance: with much
    larger ones the loss saturates, with much smaller ones it stays at log 2.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(bits, channels, generator=generator) * std


def hash_logits(feat_BC: Tensor, planes_MC: Tensor, bias_M: Tensor) -> Tensor:
    """h(f) = W f + b: BxC -> BxM."""
    return F.linear(feat_BC, planes_MC, bias_M)


def lsh_loss(
    feat_BC: Tensor,
    target_BC: Tensor,
    planes_MC: Tensor,
    bias_M: Tensor,
    kind: Literal["lshl2", "lsh", "l2"] = "lshl2",
) -> Tensor:
    """Loss of each feature, [B], nats and squared units of the feature space.

        lsh    mean_m BCE(h(u)_m, 1[h(v)_m > 0])
        l2     mean_c (u_c - v_c)^2
        lshl2  their sum, LSHFM's default

    Args:
        feat_BC: u, the student's projected feature; the gradient goes here.
        target_BC: v, the denoised feature; detach it where it plays the teacher's role.
        planes_MC: W.
        bias_M: b.
        kind: which terms.
    """
    loss_B = torch.zeros(feat_BC.shape[0], device=feat_BC.device, dtype=feat_BC.dtype)
    if kind in ("lshl2", "l2"):
        loss_B = loss_B + (feat_BC - target_BC).square().mean(dim=1)
    if kind in ("lshl2", "lsh"):
        bits_BM = (hash_logits(target_BC.detach(), planes_MC, bias_M) > 0).to(feat_BC.dtype)
        logits_BM = hash_logits(feat_BC, planes_MC, bias_M)
        loss_B = loss_B + F.binary_cross_entropy_with_logits(logits_BM, bits_BM, reduction="none").mean(dim=1)
    return loss_B


def hash_agreement(feat_BC: Tensor, other_BC: Tensor, planes_MC: Tensor, bias_M: Tensor) -> Tensor:
    """Share of bits that two features have in common, a scalar in [0, 1]; 0.5 is chance."""
    signs = (hash_logits(feat, planes_MC, bias_M) > 0 for feat in (feat_BC, other_BC))
    return torch.eq(*signs).float().mean()


def bit_entropy(hashed_BM: Tensor) -> Tensor:
    """Mean entropy of a hash bit over the batch, a scalar in [0, 1] bits; 0: every image has the same code."""
    share_M = (hashed_BM > 0).float().mean(dim=0).clamp(1e-6, 1 - 1e-6)
    return -(share_M * share_M.log2() + (1 - share_M) * (1 - share_M).log2()).mean()
