"""The light-weight denoiser: features of one step t in, the noise in them out.

After DiffKD (arXiv 2305.15712, section 3.3): two bottleneck blocks and a 1x1 convolution on maps,
two narrow MLPs on vectors. Discarded when the training ends.

Two deviations for DSKD, both measured on the pooled features of a small ResNet (96 channels, 600 steps of SGD,
group norm; mean squared error of the noise, 1 is what predicting nothing gives):

    as DiffKD has it: unit-variance time embedding, no skip      0.91
    small time embedding, no skip                                0.78
    small time embedding, skip from the input to the output      0.20

A noisy sample is mostly noise, so the skip starts near the answer; and unit-variance embeddings of a
thousand steps, each seen rarely, are as loud as the signal. `denoiser_skip` turns the skip off. The
embedding is no table either but a mixture of waves, which learns as well and costs less: on made-up
features of 256 channels the error was 0.222 and 0.227 after 300 steps (two seeds), with a small table
0.235 and 0.252. And more than `max_hidden` channels end in a convolution of low rank: on made-up maps of
1024 channels 0.401 and 0.404 after 150 steps, with a full one 0.416 and 0.420, at a quarter of its cost.

Shape suffixes: B images, C channels, H and W grid.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from dskd_compress.methods.diffusion.schedule import TRAIN_STEPS

NormKind = Literal["gn", "bn", "ln"]
TimeKind = Literal["waves", "table"]


def make_norm(kind: NormKind, channels: int, spatial: bool) -> nn.Module:
    """A normalisation of BxC (`spatial` False) or BxCxHxW features.

    Batch statistics (`bn`) mix the teacher's clean features with the student's at five noise
    levels; group statistics (`gn`, up to 32 groups) and layer statistics (`ln`) do not.
    """
    if kind == "bn":
        return nn.BatchNorm2d(channels) if spatial else nn.BatchNorm1d(channels)
    groups = math.gcd(32, channels) if kind == "gn" else 1
    while groups > 1 and channels // groups < 4:
        groups //= 2  # a group of one value would be normalised to nothing
    return nn.GroupNorm(groups, channels)


class Bottleneck(nn.Module):
    """1x1 to a quarter (or less), 3x3, 1x1 back, with a residual connection."""

    def __init__(self, channels: int, norm: NormKind, max_hidden: int) -> None:
        super().__init__()
        narrow = max(8, min(channels // 4, max_hidden // 4))
        self.body = nn.Sequential(
            nn.Conv2d(channels, narrow, 1, bias=False),
            make_norm(norm, narrow, spatial=True),
            nn.ReLU(inplace=True),
            nn.Conv2d(narrow, narrow, 3, padding=1, bias=False),
            make_norm(norm, narrow, spatial=True),
            nn.ReLU(inplace=True),
            nn.Conv2d(narrow, channels, 1, bias=False),
            make_norm(norm, channels, spatial=True),
        )

    def forward(self, feat_BCHW: Tensor) -> Tensor:
        """BxCxHxW -> BxCxHxW."""
        out: Tensor = feat_BCHW + self.body(feat_BCHW)
        return out


class SinusoidalTime(nn.Module):
    """A vector for each step, a linear map of sines and cosines of it; small at first compared with unit variance.

    A table of a thousand rows, nearly all of which a step leaves alone, still costs its whole size in
    every update: 12 ms of a processor's time for 2048 channels, against 1.5.
    """

    waves_TF: Tensor

    def __init__(self, channels: int, waves: int = 32) -> None:
        super().__init__()
        frequency_F = torch.exp(-math.log(1e4) * torch.arange(waves) / waves)
        angle_TF = torch.arange(TRAIN_STEPS)[:, None] * frequency_F
        self.register_buffer("waves_TF", torch.cat((angle_TF.sin(), angle_TF.cos()), dim=1), persistent=False)
        self.mix = nn.Linear(2 * waves, channels)
        nn.init.normal_(self.mix.weight, std=0.02 / waves**0.5)  # the squares of the waves add up to `waves`
        nn.init.zeros_(self.mix.bias)

    def forward(self, step_B: Tensor) -> Tensor:
        """Integer steps [B] -> BxC."""
        out_BC: Tensor = self.mix(self.waves_TF[step_B])
        return out_BC


def make_time_embedding(kind: TimeKind, channels: int) -> nn.Module:
    """Steps [B] -> BxC; `table` is DiffKD's, of unit variance."""
    return SinusoidalTime(channels) if kind == "waves" else nn.Embedding(TRAIN_STEPS, channels)


class MapDenoiser(nn.Module):
    """eps_theta for maps; the cost is at most 3.1 C^2 multiply-accumulates a place.

    Args:
        max_hidden: four times the largest width of the 3x3 convolutions, and of the rank of the last one
            where there are more channels than this.
    """

    def __init__(self, channels: int, norm: NormKind, skip: bool, max_hidden: int, time: TimeKind) -> None:
        super().__init__()
        self.skip = skip
        self.time = make_time_embedding(time, channels)
        self.body = nn.Sequential(
            Bottleneck(channels, norm, max_hidden),
            Bottleneck(channels, norm, max_hidden),
            *self._last(channels, max_hidden, biased=norm != "bn"),
        )
        # DiffKD normalises the output too. Group and layer statistics would take away each image's
        # mean, which is all that a pooling head reads, so only batch statistics stand there.
        if norm == "bn":
            self.body.append(nn.BatchNorm2d(channels))

    @staticmethod
    def _last(channels: int, max_hidden: int, biased: bool) -> list[nn.Module]:
        """A 1x1 convolution; above the limit it is of low rank, or it would cost more than all the rest."""
        if channels <= max_hidden:
            return [nn.Conv2d(channels, channels, 1, bias=biased)]
        rank = max_hidden // 4
        return [nn.Conv2d(channels, rank, 1, bias=False), nn.Conv2d(rank, channels, 1, bias=biased)]

    def forward(self, noisy_BCHW: Tensor, step_B: Tensor) -> Tensor:
        """BxCxHxW and integer steps [B] -> the noise, BxCxHxW."""
        out_BCHW: Tensor = self.body(noisy_BCHW + self.time(step_B)[:, :, None, None])
        return noisy_BCHW + out_BCHW if self.skip else out_BCHW


class VectorDenoiser(nn.Module):
    """eps_theta for pooled features: two MLPs in a row.

    Args:
        width: hidden size as a multiple of C. DiffKD has 4; 4 C^2 `width` weights in all.
        max_hidden: largest hidden size. Without a limit the denoiser of a teacher with 2048 channels has
            more weights than most students, and costs as much as they do.
    """

    def __init__(
        self, channels: int, width: float, norm: NormKind, skip: bool, max_hidden: int, time: TimeKind
    ) -> None:
        super().__init__()
        self.skip = skip
        hidden = max(32, round(min(channels * width, max_hidden) / 32) * 32)
        self.time = make_time_embedding(time, channels)

        biased = norm != "bn"  # batch norm takes a bias in front of it away

        def mlp(last: bool) -> list[nn.Module]:
            return [
                nn.Linear(channels, hidden, bias=biased),
                make_norm(norm, hidden, spatial=False),
                nn.ReLU(inplace=True),
                nn.Linear(hidden, channels, bias=biased or last),
            ]

        self.body = nn.Sequential(*mlp(False), make_norm(norm, channels, spatial=False), *mlp(True))

    def forward(self, noisy_BC: Tensor, step_B: Tensor) -> Tensor:
        """BxC and integer steps [B] -> the noise, BxC."""
        out_BC: Tensor = self.body(noisy_BC + self.time(step_B))
        return noisy_BC + out_BC if self.skip else out_BC


def make_denoiser(
    kind: Literal["vector", "map"],
    channels: int,
    *,
    width: float,
    max_hidden: int,
    norm: NormKind,
    skip: bool,
    time: TimeKind = "waves",
) -> nn.Module:
    """The denoiser for a tap."""
    if kind == "map":
        return MapDenoiser(channels, norm, skip, max_hidden, time)
    return VectorDenoiser(channels, width, norm, skip, max_hidden, time)
