"""What TensorRT refuses is one clear error and leaves no file: one generation as a fake, one for real."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import engine_contract
import onnx
import pytest
from engine_support import build_arguments, make_bundle, make_classifier
from onnx import TensorProto, helper

from dskd_compress.cli import describe
from dskd_export import codes
from dskd_export.bundle.onnx_file import opset_of
from dskd_export.engine.builder import BuildTarget, build_engine, profiles_of
from dskd_export.engine.document import engines_folder
from dskd_export.engine.generations import open_backend
from dskd_export.engine.process import BuildRequest, Fault, run_in_child_process, run_request
from dskd_export.errors import DskdError, EnvironmentProblem, MissingExtra, ModelError, UsageError
from dskd_export.settings import BuildSettings

RTX = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")
REAL = "real TensorRT-RTX"
FAKE = engine_contract.SERVES["trt11.py"][0]
KINDS = [FAKE, pytest.param(REAL, marks=RTX)]


@pytest.fixture(params=KINDS)
def build(request, make_machine):
    """Build a bundle with a TensorRT, and see that a failure leaves nothing."""

    def run(bundle, precision="fp32", **settings):
        folder = engines_folder(bundle.folder)
        if request.param == REAL:
            chosen = {"targets": ("sm86",), "backend": "tensorrt-rtx", **settings}
            call = lambda work: run_request(work, open_backend("tensorrt-rtx"))  # noqa: E731
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


@pytest.fixture
def child_request(bundle, tmp_path):
    return BuildRequest(
        backend="tensorrt",
        model=bundle.model_path("fp32"),
        plan=tmp_path / "plan",
        precision="fp32",
        first_rung_bytes=1 << 30,
        cache_folder=tmp_path,
    )


def test_an_operator_is_named_with_its_node(build, tmp_path):
    with pytest.raises(ModelError, match=r"model\.fp32\.onnx: Det \(node my_det\)") as caught:
        build(make_bundle(tmp_path / "bundle", make_classifier(operator="Det")))
    assert caught.value.exit_code == 3


def test_a_workspace_too_small(build, bundle):
    build.world = {"least_workspace": 1_000_000}
    with pytest.raises(UsageError, match=r"fp32.* 0\.001 MB") as caught:
        build(bundle, workspace_mb=0.001)
    assert "--memPoolSize workspace:" in caught.value.hint


def test_a_second_input_without_a_profile(build, tmp_path):
    model = make_classifier()
    model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["n", 3]))
    model.graph.node.append(helper.make_node("ReduceMax", ["other"], ["m"], "other_max", keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, []))
    bundle = make_bundle(tmp_path / "bundle", make_classifier(), fp16=model)
    with pytest.raises(ModelError, match=r"input other \[-1, 3\]"):
        build(bundle, "fp16")


def test_a_model_of_one_batch_only(build, tmp_path):
    model = make_classifier()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    bundle = make_bundle(tmp_path / "bundle", make_classifier(), fp16=model)
    with pytest.raises(ModelError, match=r"\[1, 3, 6, 8\].*\[2, "):
        build(bundle, "fp16", batches=(1, 8))
    _, document = build(bundle, "fp16", batches=(1,))
    assert [profile.model_dump() for profile in document.profiles] == [{"smallest": 1, "best": 1, "largest": 1}]


def test_an_operator_set_that_is_too_new(build, tmp_path):
    bundle = make_bundle(tmp_path / "bundle", make_classifier(), bf16=make_classifier(opset=25))
    with pytest.raises(EnvironmentProblem, match=r"25.* 24\. bf16 needs at least 22") as caught:
        build(bundle, "bf16")
    assert "export.opset" in caught.value.hint


@pytest.mark.parametrize("damage", ["garbage", "cut", "text"])
def test_a_corrupt_onnx(damage, tmp_path, make_machine):
    """A bundle with one is not even opened; here it gets past that."""
    data = make_classifier().SerializeToString()
    content = {"garbage": bytes(range(256)) * 4, "cut": data[:-40], "text": b"not an ONNX file"}[damage]
    (tmp_path / "model.fp32.onnx").write_bytes(content)
    for kind in (*([REAL] if importlib.util.find_spec("tensorrt_rtx") else []), FAKE):
        backend = open_backend("tensorrt-rtx") if kind == REAL else make_machine(kind).backend
        request = BuildRequest(
            backend="auto",
            model=tmp_path / "model.fp32.onnx",
            plan=tmp_path / "plan",
            precision="fp32",
            first_rung_bytes=1 << 30,
            cache_folder=tmp_path,
        )
        with pytest.raises(ModelError, match=r"model\.fp32\.onnx"):
            run_request(request, backend)
        assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize("batches", [(), (0,), (1, -3)])
def test_batches_that_are_none(spec, batches):
    with pytest.raises(UsageError) as caught:
        profiles_of(spec, batches)
    assert "--batch" in caught.value.hint


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
    with pytest.raises(ModelError, match=r"^x "):
        opset_of(model.SerializeToString(), "x")
    assert opset_of(onnx.load_from_string(make_classifier().SerializeToString()).SerializeToString(), "x") == 20


@pytest.mark.parametrize(
    ("source", "words", "code"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "SIGSEGV.* fp32", None),
        (
            "import sys\nprint('Internal Error: x', file=sys.stderr)\nimport os\nos._exit(7)\n",
            "code 7 .*: Internal Error: x",
            None,
        ),
        ("raise ImportError('libnvinfer.so.10: cannot open')\n", r"libnvinfer\.so\.10", codes.LIBNVINFER),
        ("__version__ = '8.6.1'\n", r"8\.6\.1", codes.TENSORRT_MAJOR),
    ],
)
def test_an_error_of_the_child_process_keeps_its_code(source, words, code, child_request, monkeypatch, tmp_path):
    (tmp_path / "planted/tensorrt").mkdir(parents=True)
    (tmp_path / "planted/tensorrt/__init__.py").write_text(source, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "planted"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    monkeypatch.setenv("PYTHONPATH", path)
    with pytest.raises(EnvironmentProblem, match=words) as caught:
        run_in_child_process(child_request)
    assert caught.value.code is code
    assert caught.value.hint
    assert not child_request.plan.exists()
    if code is not None:
        assert describe(caught.value).code is code, "and the command line prints it"


def test_an_error_without_a_code_keeps_its_class(child_request):
    """The child refuses the model, with the real TensorRT or with none."""
    request = child_request.model_copy(update={"backend": "auto", "model": child_request.cache_folder / "no.onnx"})
    request.model.write_bytes(b"not an ONNX file")
    missing = importlib.util.find_spec("tensorrt_rtx") is None
    with pytest.raises(EnvironmentProblem if missing else ModelError) as caught:
        run_in_child_process(request)
    assert caught.value.hint


@pytest.mark.parametrize(
    "error",
    [
        UsageError("a", "b"),
        ModelError("a"),
        EnvironmentProblem("a", code=codes.GPU_MEMORY),
        EnvironmentProblem("a", "b", code=codes.TENSORRT),
        MissingExtra("tensorrt", "tensorrt"),
    ],
)
def test_a_fault_is_the_same_error_on_both_sides(error):
    again = Fault.model_validate_json(Fault.of(error).model_dump_json()).error()
    assert (again.message, again.hint, again.code) == (error.message, error.hint, error.code)
    assert again.exit_code == error.exit_code
    assert isinstance(error, type(again))


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
    with pytest.raises(EnvironmentProblem, match="No space left on device"):
        build_engine(bundle, "fp32", engines, BuildSettings(), run=machine.run)
    assert [file.name for file in engines.rglob("*") if file.is_file()] == ["timing-tensorrt-11.4.0.106.cache"]
