from __future__ import annotations

import pytest
import torch
from bundle_support import make_spec
from torch import nn

from dskd_compress.torch_source import TorchSource
from dskd_export.errors import EnvironmentProblem


@pytest.fixture
def source() -> TorchSource:
    return TorchSource("student", make_spec(), nn.Identity())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_providers(source: TorchSource) -> None:
    assert source.select_providers(["auto", "cpu", "auto"]) == ["cpu"]
    assert source.select_providers(["tensorrt", "cpu"]) == ["cpu"]
    assert source.select_providers(["tensorrt"]) == []
    with pytest.raises(EnvironmentProblem, match=r"benchmark\.providers"):
        source.select_providers(["cpu", "cuda"])


def test_it_is_in_fp32_without_a_file(source: TorchSource) -> None:
    assert source.sizes_mb == {"fp32": None}
    with source.open("fp32", "cpu", 4, 2) as runner:
        assert runner.name == "torch:cpu:fp32"
        assert runner.facts["threads"] == 2
