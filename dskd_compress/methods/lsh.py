"""Locality-sensitive-hashing loss: pull the student's feature to the target's side of random planes.

After LSHFM, "Distilling knowledge by mimicking features" (arXiv 2011.01424, equations 5 to 7). The
target is the teacher's feature in LSHFM, the denoised student feature in DSKD.

Shape suffixes: B features, C channels, M hash bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dskd_compress.config import DskdMethod, LshfmMethod
from dskd_compress.methods.base import get_labels
from dskd_compress.methods.collectives import all_reduce_mean
from dskd_compress.methods.features import FeatureSpace, flatten_locations, pool
from dskd_compress.taps import TapHead
from dskd_export.errors import TapError


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
        target_BC: v, the target; detach it where it plays the teacher's role.
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


class HashLoss(nn.Module):
    """L_LSH with its constants: the normals W and offsets b of the planes.

    Args:
        head: of the teacher; only `hash_std: fc` reads it.

    Raises:
        TapError: `hash_std: fc` and the teacher's classifier is no linear layer.
    """

    planes_MC: Tensor
    bias_M: Tensor

    def __init__(self, channels: int, head: TapHead | None, method: DskdMethod | LshfmMethod, seed: int) -> None:
        super().__init__()
        self.method = method
        bits = method.hash_bits or default_hash_bits(channels)
        std = channels**-0.5
        if method.hash_std == "fc":
            linear = None if head is None else head.linear
            if linear is None:
                raise TapError(
                    "method.hash_std: fc needs a teacher whose classifier is one linear layer.",
                    "Use method.hash_std: auto",
                )
            std = float(linear.weight.detach().std())
        self.register_buffer("planes_MC", hash_planes(channels, bits, std, seed))
        self.register_buffer("bias_M", torch.zeros(bits))

    def forward(self, u: Tensor, v: Tensor, teacher_BK: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss from the student's feature u to v, mean over images (all, or those that count)."""
        method = self.method
        arrange = pool if method.lsh_on == "pooled" else flatten_locations
        loss = lsh_loss(arrange(u), arrange(v), self.planes_MC, self.bias_M, method.lsh_loss)
        loss_B = loss.view(u.shape[0], -1).mean(dim=1)
        if not method.correct_only:
            return loss_B.mean()
        right_B = (teacher_BK.argmax(dim=1) == get_labels(labels)).float()
        # Over all processes: their losses are averaged, and the teacher is right on another part of each batch.
        return (loss_B * right_B).mean() / all_reduce_mean(right_B.mean()).clamp(min=1e-6)

    def fit(self, feats: Iterable[Tensor], space: FeatureSpace) -> None:
        """Fit the space and, where the method wants it, b = -median(W z_T) in it."""
        if self.method.hash_bias == "zero":
            space.fit(feats)
            return
        pooled: list[Tensor] = []

        def pool_each() -> Iterator[Tensor]:
            for feat in feats:
                pooled.append(pool(feat))
                yield feat

        rest = pool_each()
        space.fit(rest)
        for _ in rest:  # a space without statistics has not read them
            pass
        z_NC = space.standardise(torch.cat(pooled))
        hashed_NM = hash_logits(z_NC, self.planes_MC, torch.zeros_like(self.bias_M))
        self.bias_M.copy_(-hashed_NM.median(dim=0).values)
