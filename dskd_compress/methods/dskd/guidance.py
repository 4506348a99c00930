"""Guidance of the denoising by the teacher's own classifier, as in `method.py`.

    grad l(z) = sigma J^T (q - softmax(c_T(sigma z + m)))        J = d c_T / d feature

Always fp32: in half precision q - p underflows as soon as the head is confident.

Shape suffixes: B images, C channels, H and W grid, K classes, P prefix tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dskd_compress.methods.base import get_labels
from dskd_compress.methods.features import broadcast_channels
from dskd_compress.taps import TapHead


@dataclass(frozen=True)
class TeacherHead:
    """c_T in the standardised space: z -> logits."""

    head: TapHead  # the teacher's head from the tap onwards, frozen and in eval mode
    mean_C: Tensor  # m, mean of the teacher's feature in each channel
    std_C: Tensor  # sigma, its standard deviation
    prefix_BPC: Tensor | None = None  # the prefix tokens that a map tap leaves out, of this batch

    def logits(self, z: Tensor) -> Tensor:
        """Map a standardised feature BxC or BxCxHxW to logits BxK; differentiable in z."""
        feat = z * broadcast_channels(self.std_C, z) + broadcast_channels(self.mean_C, z)
        return self.head(feat, self.prefix_BPC)

    def gradient(self, z: Tensor, target_BK: Tensor) -> Tensor:
        """Compute d/dz sum_b l(z_b): the same shape as z, fp32, no graph.

        In closed form, (q - p) W sigma, over H W for a mean-pooled map, where the head is linear;
        through autograd otherwise.
        """
        with torch.autocast(z.device.type, enabled=False):
            z = z.detach().float()
            linear = self.head.linear
            if linear is not None:
                with torch.no_grad():
                    error_BK = target_BK - self.logits(z).softmax(dim=1)
                    gradient_BC = error_BK @ linear.weight.float() * self.std_C
                    if z.ndim == 2:
                        return gradient_BC
                    places = z.shape[2] * z.shape[3]
                    return (gradient_BC / places)[:, :, None, None].expand_as(z)
            with torch.enable_grad():
                z.requires_grad_()
                log_likelihood = (target_BK * F.log_softmax(self.logits(z), dim=1)).sum()
                return torch.autograd.grad(log_likelihood, z)[0]


def clip_rms(value: Tensor, reference: Tensor, limit: float | None) -> Tensor:
    """Shrink each image's `value` so that its rms is at most `limit` times the rms of `reference`."""
    if limit is None:
        return value
    rms_value_B, rms_reference_B = (tensor.flatten(1).square().mean(dim=1).sqrt() for tensor in (value, reference))
    factor_B = (limit * rms_reference_B / rms_value_B.clamp(min=1e-12)).clamp(max=1.0)
    return value * factor_B.view(-1, *[1] * (value.ndim - 1))


@dataclass(frozen=True)
class Guide:
    """What guidance subtracts from the predicted noise: s sqrt(1 - abar_t) grad l, limited.

    Attributes:
        on: `xt` reads the head at z_t, `x0` at the one-step estimate of the clean feature, with the
            denoiser's own Jacobian left out.
        spatial: `pooled` multiplies the gradient on a map by H W. A mean-pooling head divides the
            gradient of every place by H W, and s = 1 then does next to nothing.
    """

    teacher: TeacherHead  # the head that guides
    target_BK: Tensor  # q, rows sum to 1
    scale: float  # s; 0 never calls the head
    on: Literal["x0", "xt"]
    spatial: Literal["pooled", "raw"]
    clip: float | None  # limit on the rms of the guidance relative to the rms of the noise; None for none

    def __call__(self, z: Tensor, noise: Tensor, abar: float) -> Tensor:
        """z_t, eps and abar_t -> the guidance, shaped as z; no gradient flows through it."""
        if self.scale == 0:
            return torch.zeros_like(z)
        sigma = (1 - abar) ** 0.5
        place = z if self.on == "xt" else (z - sigma * noise) / abar**0.5
        gradient = self.teacher.gradient(place, self.target_BK)
        if gradient.ndim == 4 and self.spatial == "pooled":
            gradient = gradient * (gradient.shape[2] * gradient.shape[3])
        return clip_rms(self.scale * sigma * gradient, noise.detach(), self.clip)


def guide_target(
    kind: Literal["teacher", "label", "teacher_if_correct"],
    teacher_logits_BK: Tensor,
    target: Tensor,
    temperature: float = 1.0,
) -> Tensor:
    """Compute q, the target distribution of guidance, BxK.

    Args:
        kind: `teacher` keeps the teacher's view of this image; `label` makes every denoised feature
            of a class alike; `teacher_if_correct` takes the teacher where its first class is right.
        teacher_logits_BK: of the teacher.
        target: class indices [B], or a mixed BxK distribution.
        temperature: softens the teacher.
    """
    classes = teacher_logits_BK.shape[1]
    label_BK = F.one_hot(target, classes).float() if target.ndim == 1 else target.float()
    if kind == "label":
        return label_BK
    teacher_BK = (teacher_logits_BK.float() / temperature).softmax(dim=1)
    if kind == "teacher":
        return teacher_BK
    right_B = teacher_logits_BK.argmax(dim=1) == get_labels(target)
    return torch.where(right_B[:, None], teacher_BK, label_BK)
