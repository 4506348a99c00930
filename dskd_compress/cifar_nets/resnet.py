"""ResNets for 32-px images: three stages of basic blocks, no pooling in the stem (arXiv 1512.03385, section 4.2).

Depth is 6n + 2 for n blocks a stage. Unlike the paper's identity shortcuts, a change of width or stride has a
1x1 convolution with batch norm, as in the CRD code base whose published accuracies are the field's reference.
"""

from __future__ import annotations

import torch.nn.functional as F
from timm.models import generate_default_cfgs
from torch import Tensor, nn

from dskd_compress.cifar_nets.base import CifarNet, make_entry, make_pretrained_config


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map BxCxHxW to BxC'xH'xW'."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class CifarResNet(CifarNet):
    """A ResNet for 32-px images.

    Args:
        depth: layers with weights, 6n + 2.
        widths: channels of the stem and of the three stages.
    """

    def __init__(
        self,
        depth: int,
        widths: tuple[int, int, int, int],
        num_classes: int = 100,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6n + 2, not {depth}")
        stem = nn.Sequential(
            nn.Conv2d(in_chans, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        stages = []
        for index in range(3):
            inputs, outputs = widths[index], widths[index + 1]
            first = BasicBlock(inputs, outputs, 1 if index == 0 else 2)
            stages.append(nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1))))
        super().__init__(stem, stages, nn.Identity(), widths[1:], (1, 2, 4), num_classes, drop_rate)


_NARROW = (16, 16, 32, 64)
_WIDE = (32, 64, 128, 256)

ENTRIES = (
    *(
        make_entry(CifarResNet, f"cifar_resnet{depth}", depth=depth, widths=_NARROW)
        for depth in (8, 14, 20, 32, 56, 110)
    ),
    *(make_entry(CifarResNet, f"cifar_resnet{depth}x4", depth=depth, widths=_WIDE) for depth in (8, 32)),
)
default_cfgs = generate_default_cfgs({entry.__name__: make_pretrained_config("stem.0") for entry in ENTRIES})
