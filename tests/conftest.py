"""Fixtures that several test files share."""

from __future__ import annotations

import os

# One thread a process: tiny tensors gain nothing from more, and the suite leaves room for other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from gate_support import make_photo_run
from hypothesis import settings
from run_support import QUIET, Finished, small_recipe
from support import CLASSES, make_pair

from dskd_compress import console
from dskd_compress.methods import Pair
from dskd_compress.run_folder import RunFolder

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


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Trained, distilled, exported, validated, timed and reported."""
    from dskd_compress.stages.pipeline import run_pipeline

    recipe = small_recipe()
    folder = RunFolder(tmp_path_factory.mktemp("finished") / "run")
    return Finished(recipe, folder, tuple(run_pipeline(recipe, folder, QUIET)))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A student of real photographs, exported in fp32, fp16 and int8. Copy it before changing anything in it."""
    return make_photo_run(tmp_path_factory.mktemp("photos"))


@pytest.fixture
def no_document_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process: nothing was printed with --json."""
    monkeypatch.setattr(console, "_document_written", False)
