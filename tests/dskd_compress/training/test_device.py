from __future__ import annotations

import pytest
import torch

from dskd_compress.config import TrainSection
from dskd_compress.training.device import autocast, peak_memory_mb, resolve_device
from dskd_export.errors import EnvironmentProblem, UsageError

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def test_the_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


@no_gpu
def test_auto_is_the_cpu_without_a_gpu() -> None:
    assert resolve_device("auto") == torch.device("cpu")


@no_gpu
def test_asked_for_a_gpu_that_is_not_there() -> None:
    with pytest.raises(EnvironmentProblem, match=r"finds no CUDA device.*--device cpu"):
        resolve_device("cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "mps"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="auto, cpu, cuda"):
        resolve_device(name)


def test_autocast_of_each_precision() -> None:
    cpu = torch.device("cpu")
    product = {}
    for precision in ("fp32", "bf16"):
        with autocast(TrainSection(precision=precision), cpu):
            product[precision] = (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    assert product == {"fp32": torch.float32, "bf16": torch.bfloat16}


def test_memory_of_this_process() -> None:
    peak = peak_memory_mb(torch.device("cpu"))
    assert peak is not None
    assert 50 < peak < 1e6
