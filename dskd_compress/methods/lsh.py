"""Locality-sensitive-hashing loss: the student's feature shall fall on the target's side of random planes.

After LSHFM, "Distilling knowledge by mimicking features" (arXiv 2011.01424, equations 5 to 7). The
target is the teacher's feature in LSHFM, the denoised student feature in DSKD.

Shape suffixes: B features, C channels, M hash bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dskd_compress.methods.base import labels_of
from dskd_compress.methods.draws import mean_over_processes
from dskd_compress.methods.features import FeatureModule, by_location, pool
from dskd_compress.taps import Tap, TapHead
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


class LshSettings(Protocol):
    """The keys of a method's section that describe the hash loss."""

    @property
    def feature_norm(self) -> Literal["teacher_stats", "none"]: ...  # noqa: D102
    @property
    def lsh_loss(self) -> Literal["lshl2", "lsh", "l2"]: ...  # noqa: D102
    @property
    def lsh_on(self) -> Literal["pooled", "location"]: ...  # noqa: D102
    @property
    def hash_bits(self) -> int | None: ...  # noqa: D102
    @property
    def hash_std(self) -> Literal["auto", "fc"]: ...  # noqa: D102
    @property
    def hash_bias(self) -> Literal["zero", "median"]: ...  # noqa: D102
    @property
    def correct_only(self) -> bool: ...  # noqa: D102


class LshModule(FeatureModule):
    """A student whose feature is hashed; the constants W and b are buffers.

    Raises:
        TapError: `hash_std: fc` and the teacher's classifier is no linear layer.
    """

    planes_MC: Tensor
    bias_M: Tensor

    def __init__(
        self,
        student: nn.Module,
        label_smoothing: float,
        student_tap: Tap,
        channels: int,
        teacher_head: TapHead | None,
        settings: LshSettings,
        seed: int,
    ) -> None:
        super().__init__(student, label_smoothing, student_tap, channels, settings.feature_norm)
        self.settings = settings
        bits = settings.hash_bits or default_hash_bits(channels)
        std = channels**-0.5
        if settings.hash_std == "fc":
            linear = None if teacher_head is None else teacher_head.linear
            if linear is None:
                raise TapError(
                    "method.hash_std: fc needs a teacher whose classifier is one linear layer.",
                    "Use method.hash_std: auto",
                )
            std = float(linear.weight.detach().std())
        self.register_buffer("planes_MC", hash_planes(channels, bits, std, seed))
        self.register_buffer("bias_M", torch.zeros(bits))

    def distil_loss(self, u: Tensor, target_feat: Tensor, teacher_BK: Tensor, target: Tensor) -> Tensor:
        """The hash loss from the student's feature u to another, mean over images (all, or those that count)."""
        settings = self.settings
        arrange = pool if settings.lsh_on == "pooled" else by_location
        loss = lsh_loss(arrange(u), arrange(target_feat), self.planes_MC, self.bias_M, settings.lsh_loss)
        loss_B = loss.view(u.shape[0], -1).mean(dim=1)
        if not settings.correct_only:
            return loss_B.mean()
        right_B = (teacher_BK.argmax(dim=1) == labels_of(target)).float()
        # Over all processes: their losses are averaged, and each may have another share of right ones.
        return (loss_B * right_B).mean() / mean_over_processes(right_B.mean()).clamp(min=1e-6)

    def fit(self, batches: Iterator[Tensor]) -> None:
        """Set m and sigma and, where asked for, b = -median(W z_T)."""
        if self.settings.hash_bias == "zero":
            super().fit(batches)
            return
        pooled: list[Tensor] = []

        def seen() -> Iterator[Tensor]:
            for feat in batches:
                pooled.append(pool(feat))
                yield feat

        rest = seen()
        super().fit(rest)
        for _ in rest:  # without standardisation nobody has looked at them
            pass
        z_NC = (torch.cat(pooled) - self.mean_C) / self.std_C
        hashed_NM = hash_logits(z_NC, self.planes_MC, torch.zeros_like(self.bias_M))
        self.bias_M.copy_(-hashed_NM.median(dim=0).values)
