"""VGGs for 32-px images: five stages with batch norm, pooling before the second to fourth, one linear layer."""

from __future__ import annotations

from timm.models import generate_default_cfgs
from torch import nn

from dskd_compress.cifar_nets.base import CifarNet, make_entry, make_pretrained_config

_WIDTHS = (64, 128, 256, 512, 512)


class CifarVgg(CifarNet):
    """A VGG.

    Args:
        convolutions: 3x3 convolutions in each stage.
    """

    def __init__(
        self, convolutions: int, num_classes: int = 100, in_chans: int = 3, drop_rate: float = 0.0
    ) -> None:
        stages: list[nn.Module] = []
        inputs = in_chans
        for index, width in enumerate(_WIDTHS):
            # A map of 32 pixels is halved three times; the last two stages work on 4x4.
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if 1 <= index <= 3 else []
            for _ in range(convolutions):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
            stages.append(nn.Sequential(*layers))
        super().__init__(nn.Identity(), stages, nn.Identity(), _WIDTHS, (1, 2, 4, 8, 8), num_classes, drop_rate)


ENTRIES = (
    make_entry(CifarVgg, "cifar_vgg8", convolutions=1),
    make_entry(CifarVgg, "cifar_vgg13", convolutions=2),
)
default_cfgs = generate_default_cfgs({entry.__name__: make_pretrained_config("stages.0.0") for entry in ENTRIES})
