"""Wide ResNets for 32-px images (arXiv 1605.07146): pre-activation blocks, depth 6n + 4, widths 16k, 32k, 64k."""

from __future__ import annotations

import torch.nn.functional as F
from timm.models import generate_default_cfgs
from torch import Tensor, nn

from dskd_compress.cifar_nets.base import CifarNet, make_entry, make_pretrained_config


class PreActivationBlock(nn.Module):
    """Norm and ReLU before each of two 3x3 convolutions; a 1x1 shortcut starts after the first ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """Map BxCxHxW to BxC'xH'xW'."""
        active = F.relu(self.bn1(x))
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(CifarNet):
    """A wide ResNet.

    Args:
        depth: 6n + 4.
        widen: k, the factor of the widths.
    """

    def __init__(
        self, depth: int, widen: int, num_classes: int = 100, in_chans: int = 3, drop_rate: float = 0.0
    ) -> None:
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6n + 4, not {depth}")
        widths = (16, 16 * widen, 32 * widen, 64 * widen)
        stem = nn.Conv2d(in_chans, widths[0], 3, 1, 1, bias=False)
        stages = []
        for index in range(3):
            inputs, outputs = widths[index], widths[index + 1]
            first = PreActivationBlock(inputs, outputs, 1 if index == 0 else 2)
            more = (PreActivationBlock(outputs, outputs, 1) for _ in range(blocks - 1))
            stages.append(nn.Sequential(first, *more))
        norm = nn.Sequential(nn.BatchNorm2d(widths[3]), nn.ReLU())
        super().__init__(stem, stages, norm, widths[1:], (1, 2, 4), num_classes, drop_rate)


ENTRIES = tuple(
    make_entry(WideResNet, f"cifar_wrn_{depth}_{widen}", depth=depth, widen=widen)
    for depth, widen in ((16, 2), (40, 1), (40, 2))
)
default_cfgs = generate_default_cfgs({entry.__name__: make_pretrained_config("stem") for entry in ENTRIES})
