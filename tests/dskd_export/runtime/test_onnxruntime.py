from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ort_support import CPU, CUDA, TRT, FakeOnnxRuntime

from dskd_export import codes
from dskd_export.errors import EnvironmentProblem, MissingExtra, ModelError, UsageError
from dskd_export.runtime import onnxruntime as module
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner, list_providers
from dskd_export.runtime.runner import Runner, RunnerFacts
from dskd_export.telemetry.cuda import Gpu
from dskd_export.telemetry.host import usable_cores


@pytest.fixture
def path(tmp_path: Path, onnx_bytes: bytes) -> Path:
    path = tmp_path / "model.fp32.onnx"
    path.write_bytes(onnx_bytes)
    return path


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("as_bytes", [True, False])
def test_gives_what_numpy_gives(path: Path, head, batch: int, as_bytes: bool) -> None:
    weight, bias = head
    input_BCHW = np.random.default_rng(batch).normal(size=(batch, 3, 6, 8)).astype(np.float32)
    runner: Runner = OnnxRuntimeRunner(path.read_bytes() if as_bytes else path)
    with runner:
        outputs = runner.infer({"input": input_BCHW})
    assert list(outputs) == ["logits"]
    expected = input_BCHW.astype(np.float64).mean(axis=(2, 3)) @ weight + bias
    np.testing.assert_allclose(outputs["logits"], expected, atol=1e-5 * np.abs(expected).max())


def test_takes_arrays_that_are_not_contiguous(path: Path) -> None:
    input_BCHW = np.random.default_rng(0).normal(size=(3, 6, 8, 4)).astype(np.float32).transpose(3, 0, 1, 2)
    with OnnxRuntimeRunner(path) as runner:
        found = runner.infer({"input": input_BCHW})["logits"]
        np.testing.assert_array_equal(found, runner.infer({"input": input_BCHW.copy()})["logits"])


def test_name_and_facts(path: Path) -> None:
    import onnxruntime

    with OnnxRuntimeRunner(path, threads=1, precision="fp16") as runner:
        assert runner.name == "onnxruntime:cpu:fp16"
        facts = runner.facts
    assert facts.load_ms is not None
    assert facts.load_ms > 0
    assert replace(facts, load_ms=None) == RunnerFacts(
        library="onnxruntime",
        version=onnxruntime.__version__,
        provider="cpu",
        precision="fp16",
        threads=1,
        providers=("CPUExecutionProvider",),
        optimizer=True,
        tf32=False,
    )


def test_threads_default_to_the_cores_of_the_process(path: Path) -> None:
    with OnnxRuntimeRunner(path) as runner:
        assert runner.facts.threads == usable_cores()


def test_closed_on_exit(path: Path) -> None:
    with OnnxRuntimeRunner(path) as runner:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        runner.infer({})


@pytest.mark.parametrize(
    "feeds",
    [
        {"input": np.zeros((1, 3, 6, 9), np.float32)},
        {"input": np.zeros((1, 3, 6, 8))},
        {"image": np.zeros((1, 3, 6, 8), np.float32)},
    ],
)
def test_wrong_input_is_named(path: Path, feeds: dict) -> None:
    with OnnxRuntimeRunner(path) as runner, pytest.raises(ModelError, match=r"cpu:fp32.* \w+ float"):
        runner.infer(feeds)


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx") as caught:
        OnnxRuntimeRunner(tmp_path / "none.onnx")
    assert "dskd-compress export" in caught.value.hint
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ModelError, match=r"text\.onnx on cpu") as caught:
        OnnxRuntimeRunner(tmp_path / "text.onnx")
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="the model on cpu"):
        OnnxRuntimeRunner(b"")


def test_what_cannot_be_asked_for(path: Path) -> None:
    with pytest.raises(UsageError, match="tpu") as caught:
        OnnxRuntimeRunner(path, provider="tpu")
    assert "--provider cpu" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        OnnxRuntimeRunner(path, threads=0)
    assert "benchmark.threads" in caught.value.hint


def test_cuda_without_a_gpu_is_an_error_and_no_fallback(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cuda_gpus", lambda: ())
    assert list_providers() == ("cpu",)
    with pytest.raises(EnvironmentProblem) as caught:
        OnnxRuntimeRunner(path, provider="cuda")
    assert "cuda" in caught.value.message
    assert "cpu" in caught.value.message, "what can be chosen instead"
    assert caught.value.code in (codes.ORT_CPU_ONLY, codes.GPU)


CONV, SHAPE = ("conv1", "Conv", CUDA), ("shape1", "Shape", CPU)


@pytest.fixture
def gpu_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeOnnxRuntime]:
    """An ONNX Runtime for GPUs on a machine that has one."""

    def make(given: list[str], *nodes: object) -> FakeOnnxRuntime:
        fake = FakeOnnxRuntime(tmp_path / "onnxruntime", given, nodes)
        monkeypatch.setattr(module, "_onnxruntime", lambda: fake)
        monkeypatch.setattr(module, "cuda_gpus", lambda: (Gpu("A GPU", (8, 6)),))
        return fake

    return make


def test_cuda_is_asked_for_alone_without_tf32(
    path: Path, gpu_build: Callable[..., FakeOnnxRuntime], capsys: pytest.CaptureFixture[str]
) -> None:
    fake = gpu_build([CUDA, CPU], CONV)
    assert list_providers() == ("cpu", "cuda", "tensorrt")
    runner = OnnxRuntimeRunner(path, provider="cuda")
    assert fake.made[0]["providers"] == [(CUDA, {"device_id": "0", "use_tf32": "0"})]
    assert fake.made[0]["enable_fallback"] == 0
    assert fake.made[0]["sess_options"].entries == {"session.record_ep_graph_assignment_info": "1"}
    assert runner.name == "onnxruntime:cuda:fp32"
    assert runner.facts.tf32 is False
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "looking for libraries" in printed.err


def test_tensorrt_is_strongly_typed_and_leaves_nothing_behind(
    path: Path, gpu_build: Callable[..., FakeOnnxRuntime]
) -> None:
    fake = gpu_build([TRT, CPU], ("conv1", "Conv", TRT), ("shape1", "Shape", CPU))
    shapes = {"input": ((1, 3, 6, 8), (8, 3, 6, 8), (8, 3, 6, 8))}
    OnnxRuntimeRunner(path, provider="tensorrt", shapes=shapes, allow_cpu=["Shape", "Gather"])
    ((name, options),) = fake.made[0]["providers"]
    assert name == TRT
    assert options["trt_profile_min_shapes"] == "input:1x3x6x8"
    assert options["trt_profile_opt_shapes"] == options["trt_profile_max_shapes"] == "input:8x3x6x8"
    assert options["trt_op_types_to_exclude"] == "Shape,Gather"
    assert not [key for key in options if key.endswith(("fp16_enable", "int8_enable", "bf16_enable"))]
    assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "0"


def test_a_node_on_the_cpu_is_an_error_that_names_it(
    path: Path, gpu_build: Callable[..., FakeOnnxRuntime]
) -> None:
    gpu_build([CUDA, CPU], CONV, SHAPE)
    with pytest.raises(EnvironmentProblem) as caught:
        OnnxRuntimeRunner(path, provider="cuda")
    assert caught.value.message.startswith("1 of 2 nodes")
    assert "Shape 'shape1' on CPU" in caught.value.message
    assert "library" not in caught.value.message, "none is missing"
    assert "--allow-cpu Shape" in str(caught.value.hint)
    assert (caught.value.code, caught.value.exit_code) == (codes.NODE_ELSEWHERE, 4)


def test_an_operator_that_is_allowed_may_run_on_the_cpu(
    path: Path, gpu_build: Callable[..., FakeOnnxRuntime]
) -> None:
    gpu_build([CUDA, CPU], CONV, SHAPE)
    OnnxRuntimeRunner(path, provider="cuda", allow_cpu=["Shape"])


def test_a_provider_that_was_left_out_is_an_error(path: Path, gpu_build: Callable[..., FakeOnnxRuntime]) -> None:
    gpu_build([CPU])
    with pytest.raises(EnvironmentProblem, match=f"{CPU}.*{CUDA}") as caught:
        OnnxRuntimeRunner(path, provider="cuda")
    assert caught.value.code is codes.NODE_ELSEWHERE


@pytest.mark.parametrize(
    "said",
    [
        "CUDA failure 2: out of memory ; GPU=0",
        "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 9 on CUDA",
    ],
)
def test_memory_of_the_gpu_that_is_used_up_has_its_own_code(
    path: Path, gpu_build: Callable[..., FakeOnnxRuntime], said: str
) -> None:
    gpu_build([CUDA], RuntimeError(said))
    with pytest.raises(EnvironmentProblem) as caught:
        OnnxRuntimeRunner(path, provider="cuda")
    assert caught.value.code is codes.GPU_MEMORY


def test_an_older_onnxruntime_is_profiled(
    path: Path, gpu_build: Callable[..., FakeOnnxRuntime], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not tell the assignment: the real one is profiled, and runs on the CPU."""
    import onnxruntime

    fake = gpu_build([CUDA])

    def session(model: str, *, sess_options: object, **_: object) -> object:
        real = onnxruntime.InferenceSession(model, sess_options=sess_options, providers=[CPU])
        shown = {name: getattr(real, name) for name in dir(real) if not name.startswith("_")}
        del shown["get_provider_graph_assignment_info"]
        return SimpleNamespace(**{**shown, "get_providers": lambda: [CUDA]})

    fake.InferenceSession, fake.SessionOptions = session, onnxruntime.SessionOptions
    fake.GraphOptimizationLevel = onnxruntime.GraphOptimizationLevel
    with pytest.raises(EnvironmentProblem, match=r"\d of \d .*CUDAExecutionProvider: \w+") as caught:
        OnnxRuntimeRunner(path, provider="cuda")
    assert caught.value.code is codes.NODE_ELSEWHERE


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(path: Path) -> None:
    input_BCHW = np.random.default_rng(0).normal(size=(8, 3, 6, 8)).astype(np.float32)
    with OnnxRuntimeRunner(path) as cpu, OnnxRuntimeRunner(path, provider="cuda") as cuda:
        assert cuda.facts.providers[0] == "CUDAExecutionProvider"
        expected = cpu.infer({"input": input_BCHW})["logits"]
        found = cuda.infer({"input": input_BCHW})["logits"]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_without_onnxruntime_the_extra_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"dskd-compress\[onnx\]"):
        OnnxRuntimeRunner(path)


def test_telemetry_is_off_and_torch_is_not_imported(path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner\n"
        "import dskd_export.runtime.preprocess, dskd_export.validation.parity\n"
        "import dskd_export.benchmark.timing, dskd_export.validation.accuracy\n"
        "import dskd_export.bundle, dskd_export.telemetry.host\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "OnnxRuntimeRunner(Path(sys.argv[1]))\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n"
        "assert not {'torch', 'timm', 'torchvision', 'onnx', 'dskd_compress'} & set(sys.modules)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    # As this process sees them, whether the package is installed or lies in a checkout.
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, env=environment)
