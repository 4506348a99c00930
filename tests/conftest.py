"""Fixtures that several test files share."""

from __future__ import annotations

import os

# One thread a process: tiny tensors gain nothing from more, and the suite leaves room for other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings
from support import CLASSES, make_pair

from dskd_compress.methods import Pair

torch.set_num_threads(1)

# `make test` tries the same examples every time; new ones: pytest --hypothesis-profile random
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("random", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile("repeatable")


@pytest.fixture
def cnn_pair() -> Pair:
    """Two small CNNs at 64 px: their last maps are 2x2, the teacher's head is mean pooling and a Linear."""
    return make_pair("test_efficientnet", "test_resnet")


@pytest.fixture
def images_BCHW() -> torch.Tensor:
    return torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels_B() -> torch.Tensor:
    return torch.randint(CLASSES, (8,), generator=torch.Generator().manual_seed(1))
