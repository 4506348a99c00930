"""What TensorRT does not take is one clear error, and leaves no file: every generation as a fake, one for real."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import engine_contract
import onnx
import pytest
from engine_support import build_arguments, make_bundle, make_classifier
from onnx import TensorProto, helper

from dskd_export.engine import BuildSettings, BuildTarget, build_engine, engines_folder
from dskd_export.engine.builder import profiles_of
from dskd_export.engine.generations import open_backend
from dskd_export.engine.opset import opset_of
from dskd_export.engine.process import Request, perform, run_isolated
from dskd_export.errors import DskdError, EnvironmentProblem, ModelError, UsageError

RTX = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")
REAL = "real TensorRT-RTX"
KINDS = [*engine_contract.SERVES["common.py"], pytest.param(REAL, marks=RTX)]


@pytest.fixture(params=KINDS)
def build(request, make_machine):
    """Build a bundle with a TensorRT, and see that a failure leaves nothing."""

    def run(bundle, precision="fp32", **settings):
        folder = engines_folder(bundle.folder)
        if request.param == REAL:
            chosen = {"targets": ("sm86",), "backend": "tensorrt-rtx", **settings}
            call = lambda work: perform(work, open_backend("tensorrt-rtx"))  # noqa: E731
        else:
            chosen, call = settings, make_machine(request.param, **run.world).run
        try:
            return build_engine(bundle, precision, folder, *build_arguments(**chosen), run=call)
        except DskdError:
            assert not folder.exists()
            raise

    run.world = {}
    run.is_real = request.param == REAL
    return run


def test_an_operator_is_named_with_its_node(build, tmp_path):
    with pytest.raises(
        ModelError, match=r"does not take model.fp32.onnx: Det \(node my_det\): this parser"
    ) as caught:
        build(make_bundle(tmp_path / "bundle", make_classifier(operator="Det")))
    assert caught.value.exit_code == 3


def test_a_workspace_too_small(build, bundle):
    build.world = {"least_workspace": 1_000_000}
    with pytest.raises(UsageError, match=r"cannot build fp32 within a workspace of 0\.001 MB") as caught:
        build(bundle, workspace_mb=0.001)
    assert "--workspace-mb" in caught.value.hint


def test_a_second_input_without_a_profile(build, tmp_path):
    model = make_classifier()
    model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["n", 3]))
    model.graph.node.append(helper.make_node("ReduceMax", ["other"], ["m"], "other_max", keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, []))
    bundle = make_bundle(tmp_path / "bundle", make_classifier(), fp16=model)
    with pytest.raises(ModelError, match=r"input other \[-1, 3\] has no range of shapes"):
        build(bundle, "fp16")


def test_a_model_of_one_batch_only(build, tmp_path):
    model = make_classifier()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    bundle = make_bundle(tmp_path / "bundle", make_classifier(), fp16=model)
    with pytest.raises(ModelError, match=r"input input is always \[1, 3, 6, 8\], and \[2, "):
        build(bundle, "fp16", batches=(1, 8))
    _, document = build(bundle, "fp16", batches=(1,))
    assert [profile.model_dump() for profile in document.profiles] == [{"smallest": 1, "best": 1, "largest": 1}]


def test_an_operator_set_that_is_too_new(build, tmp_path):
    bundle = make_bundle(tmp_path / "bundle", make_classifier(), bf16=make_classifier(opset=25))
    with pytest.raises(
        EnvironmentProblem, match=r"has operator set 25; the parser of .* reads up to 2[24]\. bf16 needs"
    ):
        build(bundle, "bf16")


@pytest.mark.parametrize("damage", ["garbage", "cut", "text"])
def test_a_corrupt_onnx(damage, tmp_path, make_machine):
    """A bundle with one is not even opened; here it gets past that."""
    data = make_classifier().SerializeToString()
    content = {"garbage": bytes(range(256)) * 4, "cut": data[:-40], "text": b"not an ONNX file"}[damage]
    (tmp_path / "model.fp32.onnx").write_bytes(content)
    for kind in (
        *engine_contract.SERVES["common.py"],
        *([REAL] if importlib.util.find_spec("tensorrt_rtx") else []),
    ):
        backend = open_backend("tensorrt-rtx") if kind == REAL else make_machine(kind).backend
        request = Request(
            backend="auto",
            model=tmp_path / "model.fp32.onnx",
            plan=tmp_path / "plan",
            precision="fp32",
            first_rung_bytes=1 << 30,
            cache_folder=tmp_path,
        )
        with pytest.raises(ModelError, match=r"model.fp32.onnx is damaged"):
            perform(request, backend)
        assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize("batches", [(), (0,), (1, -3)])
def test_batches_that_are_none(spec, batches):
    with pytest.raises(UsageError, match="whole numbers from 1 on"):
        profiles_of(spec, batches)


def test_profiles_meet_without_a_gap(spec):
    ranges = [profile["input"] for profile in profiles_of(spec, (16, 1, 4, 4))]
    assert [(low[0], best[0], high[0]) for low, best, high in ranges] == [(1, 1, 1), (2, 4, 4), (5, 16, 16)]
    assert {shape[1:] for shapes in ranges for shape in shapes} == {(3, 6, 8)}


def test_the_operator_set_is_read_without_onnx():
    assert opset_of(make_classifier(opset=18).SerializeToString(), "x") == 18
    model = make_classifier()
    model.opset_import.insert(0, helper.make_opsetid("ai.onnx.ml", 5))
    assert opset_of(model.SerializeToString(), "x") == 20
    del model.opset_import[:]
    with pytest.raises(ModelError, match="x names no ONNX operator set"):
        opset_of(model.SerializeToString(), "x")
    assert opset_of(onnx.load_from_string(make_classifier().SerializeToString()).SerializeToString(), "x") == 20


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "was ended by SIGSEGV while it built fp32"),
        (
            "import sys\nprint('Internal Error: x', file=sys.stderr)\nimport os\nos._exit(7)\n",
            "ended with code 7 .*: Internal Error: x",
        ),
        (
            "raise ImportError('libnvinfer.so.10: cannot open shared object file')\n",
            "does not load: libnvinfer.so.10",
        ),
    ],
)
def test_a_crash_of_tensorrt_is_one_error(code, words, tmp_path, monkeypatch, bundle):
    (tmp_path / "planted/tensorrt").mkdir(parents=True)
    (tmp_path / "planted/tensorrt/__init__.py").write_text(code, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "planted"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    monkeypatch.setenv("PYTHONPATH", path)
    request = Request(
        backend="tensorrt",
        model=bundle.model_path("fp32"),
        plan=tmp_path / "plan",
        precision="fp32",
        first_rung_bytes=1 << 30,
        cache_folder=tmp_path,
    )
    with pytest.raises(EnvironmentProblem, match=words):
        run_isolated(request)
    assert not (tmp_path / "plan").exists()


@RTX
def test_a_real_engine_from_a_process_of_its_own(bundle):
    target = BuildTarget(targets=("sm86", "sm120"))
    path, document = build_engine(bundle, "fp32", engines_folder(bundle.folder), BuildSettings(), target)
    assert path.stat().st_size == document.engine_bytes > 100_000
    assert 50 < document.peak_memory_mb < 3000, "of that process alone"
    assert document.truth is not None
    assert [share.type for share in document.truth.types] == ["fp32"]
    assert document.gpu_peak_memory_mb is None
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.fp32.build.json", "model.fp32.engine"]


@RTX
def test_a_library_that_the_wheel_lacks(bundle):
    arguments = build_arguments(targets=("sm86",), version_compatible=True)
    with pytest.raises(EnvironmentProblem, match=r"libnvinfer_lean\.so"):
        build_engine(bundle, "fp32", engines_folder(bundle.folder), *arguments)
    assert not engines_folder(bundle.folder).exists()


def test_no_disk_for_the_engine(make_machine, bundle, monkeypatch):
    machine = make_machine("tensorrt_bindings 11.4.0.106")
    engines = engines_folder(bundle.folder)
    engines.parent.chmod(0o755)
    write = Path.write_bytes

    def full(self, data):
        if ".engine" in self.name:
            raise OSError(28, "No space left on device", str(self))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(EnvironmentProblem, match="cannot be written: No space left on device"):
        build_engine(bundle, "fp32", engines, BuildSettings(), run=machine.run)
    assert [file.name for file in engines.rglob("*") if file.is_file()] == ["timing-tensorrt-11.4.0.106.cache"]
