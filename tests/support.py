"""Small real models and formats for tests."""

from __future__ import annotations

import torch
from torch import nn

from dskd_compress.data import Preprocessing
from dskd_compress.methods import Pair
from dskd_compress.timm_import import import_timm

CLASSES = 10


def make_format(size: int, mean: float = 0.5, std: float = 0.25) -> Preprocessing:
    """Preprocessing of a square input."""
    return Preprocessing((3, size, size), (mean,) * 3, (std,) * 3, "bicubic", 1.0, "center")


def make_model(name: str, seed: int = 0, **kwargs: object) -> nn.Module:
    """A timm model with ten classes, the same for the same seed."""
    torch.manual_seed(seed)
    model: nn.Module = import_timm().create_model(name, num_classes=CLASSES, **kwargs)
    return model


def make_pair(student: str, teacher: str, size: int = 64) -> Pair:
    """A student and a teacher that take the same images."""
    return Pair(make_model(student), make_format(size), make_model(teacher, seed=1), make_format(size))
