"""What methods that read features share: the teacher's feature space, and the projection into it.

Shape suffixes: B images, C channels, H and W grid, N features.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dskd_compress.taps import Tap


def pool(feat: Tensor) -> Tensor:
    """BxCxHxW -> BxC by the mean; BxC stays."""
    return feat if feat.ndim == 2 else feat.mean(dim=(2, 3))


def flatten_locations(feat: Tensor) -> Tensor:
    """Flatten BxCxHxW to (B H W)xC; BxC stays."""
    return feat if feat.ndim == 2 else feat.permute(0, 2, 3, 1).flatten(0, 2)


def broadcast_channels(stat_C: Tensor, feat: Tensor) -> Tensor:
    """Shape per-channel values [C] to broadcast over BxC or BxCxHxW."""
    return stat_C if feat.ndim == 2 else stat_C[:, None, None]


def measure_channels(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Measure mean and standard deviation of each channel over batches of BxC or BxCxHxW, fp64, [C] each.

    The deviation is at least a hundredth of the median one: a channel that hardly ever fires would
    otherwise blow its noise up to the size of the others.
    """
    moments_C2, count = torch.zeros(()), 0
    for feat in batches:
        feat_NC = flatten_locations(feat).double()
        moments_C2 = moments_C2.to(feat.device) + torch.stack((feat_NC.sum(0), feat_NC.square().sum(0)), dim=1)
        count += feat_NC.shape[0]
    mean_C, square_C = (moments_C2 / count).unbind(dim=1)
    std_C = (square_C - mean_C.square()).clamp(min=0).sqrt()
    return mean_C, std_C.clamp(min=float(1e-2 * std_C.median()) or 1.0)


class Projection(nn.Module):
    """P: the student's tap -> the teacher's channels and, for a map, its grid.

    Args:
        norm: batch norm after the 1x1 convolution of a map. Vectors have none.
        channels: instead of the teacher's.
    """

    def __init__(self, student: Tap, teacher: Tap, *, norm: bool = True, channels: int | None = None) -> None:
        super().__init__()
        self.grid = teacher.grid
        channels = channels or teacher.channels
        if teacher.kind == "vector":
            self.body = nn.Sequential(nn.Linear(student.channels, channels))
        else:
            self.body = nn.Sequential(nn.Conv2d(student.channels, channels, 1, bias=not norm))
            if norm:
                self.body.append(nn.BatchNorm2d(channels))

    def forward(self, feat: Tensor) -> Tensor:
        """BxC_s or BxC_sxHxW -> BxC or BxCxH'xW', fp32."""
        out: Tensor = self.body(feat).float()
        if self.grid is not None and tuple(out.shape[2:]) != self.grid:
            out = F.interpolate(out, self.grid, mode="bilinear", align_corners=False, antialias=True)
        return out


class FeatureSpace(nn.Module):
    """The space of the teacher's features: z = (F - m) / sigma in each channel.

    Args:
        norm: `teacher_stats` fits m and sigma to the teacher's features; `none` leaves F as it is.
    """

    mean_C: Tensor
    std_C: Tensor

    def __init__(self, channels: int, norm: Literal["teacher_stats", "none"]) -> None:
        super().__init__()
        self.norm = norm
        self.register_buffer("mean_C", torch.zeros(channels))
        self.register_buffer("std_C", torch.ones(channels))

    def standardise(self, feat: Tensor) -> Tensor:
        """Map F to z, of the same shape."""
        return (feat - broadcast_channels(self.mean_C, feat)) / broadcast_channels(self.std_C, feat)

    def fit(self, feats: Iterable[Tensor]) -> None:
        """Set m and sigma from batches of the teacher's features."""
        if self.norm == "teacher_stats":
            mean_C, std_C = measure_channels(feats)
            self.mean_C.copy_(mean_C)
            self.std_C.copy_(std_C)


def read_student(student: nn.Module, tap: Tap, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the student's logits BxK and its feature at the tap, in one pass."""
    features = student.forward_features(images_BCHW)  # type: ignore[operator]
    logits_BK: Tensor = student.forward_head(features)  # type: ignore[operator]
    return logits_BK, tap.read(student, features)[0]
