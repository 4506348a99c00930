from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dskd_compress.config import TrainSection
from dskd_compress.training import device
from dskd_compress.training.device import autocast, configure, peak_memory_mb, resolve_device
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


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(("threads", "expected"), [(None, 2), (3, 3)])
def test_threads_keep_to_the_quota_of_a_container(
    threads: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "usable_cores", lambda: 2)
    configure(TrainSection(threads=threads), torch.device("cpu"))
    assert torch.get_num_threads() == expected


def test_a_machine_without_a_compiler_is_refused_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    with (
        config.patch({"cpp.cxx": (None, "no-such-compiler")}),
        pytest.raises(EnvironmentProblem, match=r"no C\+\+ compiler.*train\.compile=false"),
    ):
        configure(TrainSection(compile=True, threads=torch.get_num_threads()), torch.device("cpu"))
