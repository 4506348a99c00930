"""A real bundle, and machines with a fake TensorRT of each generation: fixtures of several folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import engine_contract
import onnx
import pytest
from engine_support import make_bundle, make_classifier
from fake_cuda import FakeCuda
from fake_tensorrt import World, make_tensorrt

from dskd_export.bundle import Bundle
from dskd_export.engine import builder, generations, identity
from dskd_export.engine.adapter import TensorRtAdapter
from dskd_export.engine.document import GpuFacts
from dskd_export.engine.generations import Installed, backend_of
from dskd_export.engine.process import BuildOutcome, BuildRequest, run_request
from dskd_export.runtime.cuda import Cuda

ORIN = GpuFacts(name="Orin (nvgpu)", compute_capability="8.7", memory_mb=8_000, driver="540.4.0", cuda="12.6")
ADA = GpuFacts(name="NVIDIA RTX 4000 Ada", compute_capability="8.9", memory_mb=20_000, driver="580.1", cuda="13.0")


@pytest.fixture(scope="session")
def classifier() -> onnx.ModelProto:
    return make_classifier()


@pytest.fixture
def bundle(tmp_path: Path, classifier: onnx.ModelProto) -> Bundle:
    """fp32, and an `fp16` that holds the same model: what it is called is what a test needs of it."""
    return make_bundle(tmp_path / "bundle", classifier, fp16=classifier)


@dataclass
class Machine:
    """A machine with one generation of TensorRT and a GPU."""

    trt: ModuleType
    world: World
    backend: TensorRtAdapter
    gpu: GpuFacts | None
    here: list[Installed] = field(default_factory=list)

    def run(self, request: BuildRequest) -> BuildOutcome:
        """What a process of its own does, in this one."""
        return run_request(request, self.backend)

    @property
    def cuda(self) -> Cuda:
        return Cuda(module=self.world.cuda)


MakeMachine = Callable[..., Machine]


@pytest.fixture
def make_machine(monkeypatch: pytest.MonkeyPatch) -> MakeMachine:
    """The machine that builder and identity find from now on."""

    def make(generation: str, gpu: GpuFacts | None = ORIN, version: str | None = None, **world: Any) -> Machine:
        module, there = generation.split()
        module = module.replace("tensorrt_bindings", "tensorrt")
        made = World(FakeCuda())
        for name, value in world.items():
            setattr(made, name, value)
        trt = make_tensorrt(engine_contract.load_api()[generation], module, version or there, made)
        machine = Machine(trt, made, backend_of(trt), gpu)
        name = "tensorrt-rtx" if module == "tensorrt_rtx" else "tensorrt"
        here = Installed(name, module, Path("/somewhere"), version or there, on_path=True)
        for place in (builder, identity):
            monkeypatch.setattr(place, "find_gpu", lambda index=0: gpu)
        for place in (generations, identity):
            monkeypatch.setattr(place, "find_installed", lambda folders=None: (here,))
        return machine

    return make
