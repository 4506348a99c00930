"""Fixtures that several test files share."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

# One thread a process: tiny tensors gain nothing from more, and the suite leaves room for other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test fetches weights: what a recipe leaves open starts at random.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from gate_support import make_photo_run
from hypothesis import settings
from process_support import run_forked
from run_support import Finished, make_finished, read_outcomes, small_recipe
from support import CLASSES, make_pair

from dskd_compress import console
from dskd_compress.methods import Pair
from dskd_compress.run_folder import RunFolder

torch.set_num_threads(1)

# `make test` tries the same examples every time; new ones: pytest --hypothesis-profile random
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("random", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile("repeatable")


# A shell starts what it runs in the background with SIGINT ignored, and every child process would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> RunFolder:
    """Copy a run folder that the first of the processes of this test run makes and the others wait for."""
    base = factory.getbasetemp()
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (common / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = common / f"{name}.done"  # no rename: the recipe names its images by their whole path
        if not done.exists():
            shutil.rmtree(common / name, ignore_errors=True)
            (common / name).mkdir()
            make(common / name)
            done.touch()
    place = factory.mktemp(name)
    shutil.copytree(common / name, place, dirs_exist_ok=True)
    return RunFolder(place / "run")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Trained, distilled, exported, validated, timed and reported."""
    recipe = small_recipe()
    folder = make_once(tmp_path_factory, "finished", partial(make_finished, recipe))
    return Finished(recipe, folder, read_outcomes(folder.path.parent))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A student of real photographs, exported in fp32, fp16 and int8. Copy it before changing anything in it."""
    return make_once(tmp_path_factory, "photos", make_photo_run)


@pytest.fixture
def no_document_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process: nothing was printed with --json."""
    monkeypatch.setattr(console, "_document_written", False)


@pytest.fixture
def forked_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """`compare` trains in processes that have torch loaded already, each of which else takes three seconds."""
    forked = SimpleNamespace(run=run_forked, STDOUT=subprocess.STDOUT)
    monkeypatch.setattr("dskd_compress.stages.compare.subprocess", forked)
