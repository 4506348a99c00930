"""Twelve faults of an environment: each ends the command with exit code 4 and a code of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
from device_support import make_device_bundle
from library_support import fat_binary
from ort_support import CPU, CUDA, FakeOnnxRuntime

from dskd_compress import console
from dskd_compress.cli import describe, main
from dskd_export import codes, doctor
from dskd_export.engine.device import refuse_full_disk, system
from dskd_export.engine.document import BuildDocument, GpuFacts
from dskd_export.engine.generations import Installed
from dskd_export.engine.identity import check_identity
from dskd_export.errors import DskdError
from dskd_export.runtime import onnxruntime as runner
from dskd_export.telemetry.cuda import Gpu

MISSING = "cannot open shared object file: No such file or directory"
Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Machine:
    """A folder to plant faults in, and what is changed for the test."""

    folder: Path
    patch: Patch

    def tensorrt(self, text: str) -> None:
        """A Python module tensorrt in site-packages of its own."""
        module = self.folder / "site-packages/tensorrt"
        module.mkdir(parents=True)
        (module / "__init__.py").write_text(text, encoding="utf-8")
        self.patch.setenv("PYTHONPATH", str(module.parent), prepend=":")

    def onnxruntime(self, gpu: Gpu, **facts: object) -> None:
        """An ONNX Runtime for GPUs, and the driver's answer."""
        fake = FakeOnnxRuntime(self.folder / "onnxruntime", **facts)  # type: ignore[arg-type]
        self.patch.setattr(runner, "_onnxruntime", lambda: fake)
        self.patch.setattr(runner, "cuda_gpus", lambda: (gpu,))


BUILD = ("doctor", "--for", "build", "--json")
VALIDATE = ("validate", "BUNDLE", "--out", "out", "--json")
BENCHMARK = ("benchmark", "BUNDLE", "--out", "out", "--batch", "1", "--json")
ORIN = GpuFacts(name="Orin (nvgpu)", compute_capability="8.7", memory_mb=8_000, driver="540.4.0", cuda="12.6")
ORIN_FACTS = GpuFacts(name=ORIN.name, compute_capability="8.7", memory_mb=8000.0, driver=ORIN.driver, cuda="12.6")
TEN_THREE = Installed("tensorrt", "tensorrt", Path("/x"), "10.3.0", True)
AMPERE, BLACKWELL = Gpu("A100", (8, 0)), Gpu("B200", (10, 0))


def no_libnvinfer(machine: Machine) -> tuple[str, ...]:
    machine.tensorrt(f"raise ImportError('libnvinfer.so.98: {MISSING}')")
    return BUILD


def wrong_major(machine: Machine) -> tuple[str, ...]:
    machine.tensorrt("__version__ = '8.6.1'")
    return BUILD


def no_parser(machine: Machine) -> tuple[str, ...]:
    machine.tensorrt(f"raise ImportError('libnvonnxparser.so.98: {MISSING}')")
    return BUILD


def no_cuda_library(machine: Machine) -> tuple[str, ...]:
    machine.onnxruntime(AMPERE, needed=["libcublasLt.so.98", "libc.so.6"])
    return (*VALIDATE, "--provider", "cuda")


def wrong_compute_capability(machine: Machine) -> tuple[str, ...]:
    machine.onnxruntime(BLACKWELL, content=fat_binary(cubin=[75, 80, 86, 89, 90, 120]))
    return (*VALIDATE, "--provider", "cuda")


def wheel_without_the_provider(machine: Machine) -> tuple[str, ...]:
    machine.onnxruntime(AMPERE, built=[CUDA, CPU])
    return (*BENCHMARK, "--provider", "tensorrt")


def cpu_build_asked_for_cuda(machine: Machine) -> tuple[str, ...]:
    machine.onnxruntime(AMPERE, built=[CPU])
    return (*BENCHMARK, "--provider", "cuda")


def jetpack_off_the_path(machine: Machine) -> tuple[str, ...]:
    root = machine.folder / "root"
    (root / "usr/lib/python3.8/dist-packages/tensorrt").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.4, GCID: 1\n")
    machine.patch.setattr(doctor, "diagnose", partial(doctor.diagnose, root=root))
    return BUILD


def refused_engine(machine: Machine, **here: object) -> DskdError:
    """An engine of TensorRT 10.3 for Orin, on this machine."""
    document = BuildDocument.model_construct(
        backend="tensorrt",
        version="10.3.0",
        version_compatible=False,
        hardware="none",
        targets=[],
        stripped=False,
        precision="fp16",
        profiles=[],
        system=system(),
        gpu=ORIN_FACTS,
        bundle=None,
    )
    with pytest.raises(DskdError) as caught:
        check_identity(document, machine.folder / "model.fp16.engine", **here)  # type: ignore[arg-type]
    return caught.value


def engine_of_another_version(machine: Machine) -> DskdError:
    return refused_engine(machine, gpu=ORIN, there=replace(TEN_THREE, version="11.4.0"))


def engine_of_another_gpu(machine: Machine) -> DskdError:
    return refused_engine(
        machine, gpu=ORIN.model_copy(update={"name": "A100", "compute_capability": "8.0"}), there=TEN_THREE
    )


def no_disk_for_the_engine(machine: Machine) -> DskdError:
    with pytest.raises(DskdError) as caught:
        refuse_full_disk(machine.folder / "engines/orin", needed_mb=1e12)
    return caught.value


def gpu_memory_exhausted(machine: Machine) -> tuple[str, ...]:
    said = "CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size);"
    machine.onnxruntime(AMPERE, nodes=[RuntimeError(said)])
    return (*BENCHMARK, "--provider", "cuda")


FAULTS: dict[Callable[[Machine], tuple[str, ...] | DskdError], codes.Code] = {
    no_libnvinfer: codes.LIBNVINFER,
    wrong_major: codes.TENSORRT_MAJOR,
    no_parser: codes.PARSER,
    no_cuda_library: codes.CUDA_LIBRARY,
    wrong_compute_capability: codes.COMPUTE_CAPABILITY,
    wheel_without_the_provider: codes.ORT_WITHOUT_PROVIDER,
    cpu_build_asked_for_cuda: codes.ORT_CPU_ONLY,
    jetpack_off_the_path: codes.TENSORRT_OFF_PATH,
    engine_of_another_version: codes.ENGINE_VERSION,
    engine_of_another_gpu: codes.ENGINE_GPU,
    no_disk_for_the_engine: codes.ENGINE_DISK,
    gpu_memory_exhausted: codes.GPU_MEMORY,
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_device_bundle(tmp_path_factory.mktemp("device"))


def test_there_are_twelve_and_no_two_have_one_code() -> None:
    assert len(FAULTS) == len(set(FAULTS.values())) == 12


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_has_its_code_and_nothing_runs_to_completion(
    fault: Callable[[Machine], tuple[str, ...] | DskdError],
    bundle: Path,
    tmp_path: Path,
    monkeypatch: Patch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(console, "_document_written", False)
    monkeypatch.chdir(tmp_path)
    planted = fault(Machine(tmp_path, monkeypatch))
    expected = str(FAULTS[fault])
    if isinstance(planted, DskdError):
        failure = describe(planted)
        assert (str(failure.code), failure.exit_code) == (expected, 4)
        assert failure.hint
        return
    arguments = [str(bundle) if word == "BUNDLE" else word for word in planted]
    assert main(arguments) == 4
    out, err = capsys.readouterr()
    document = json.loads(out.splitlines()[-1])
    assert "error: " in err
    assert "hint: " in err
    if arguments[0] == "doctor":
        errors = [one["code"] for one in document["findings"] if one["level"] == "error"]
        assert errors == [expected]
        assert expected in err
    else:
        assert document["error"]["code"] == expected
        assert re.search(rf"^error: {expected}: ", err, re.MULTILINE)
    assert not (tmp_path / "out").exists()
