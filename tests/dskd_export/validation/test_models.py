"""Who is compared: precisions, providers, pairs, and what cannot be run here."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import gate_support as gate
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from run_support import QUIET

from dskd_compress import torch_reference
from dskd_compress.cli import main
from dskd_compress.run_folder import RunFolder
from dskd_compress.stages.pipeline import run_pipeline
from dskd_compress.stages.validate import run_validate
from dskd_export.bundle import open_bundle
from dskd_export.documents.base import read_document
from dskd_export.documents.validation import ValidationDocument
from dskd_export.errors import EnvironmentProblem, ProviderLacksKernel, UsageError
from dskd_export.precision.calibration import Calibration
from dskd_export.precision.half import half_precision
from dskd_export.runtime import loader
from dskd_export.runtime.compute_precision import ComputePrecision

pytestmark = pytest.mark.usefixtures("no_document_yet")

FP32, FP16, INT8 = (f"onnxruntime:cpu:{name}" for name in ("fp32", "fp16", "int8"))
TORCH = "torch:cpu:fp32"


@pytest.fixture
def run(photos: RunFolder, tmp_path: Path) -> RunFolder:
    return gate.copy_run(photos, tmp_path / "run")


def validated(run: RunFolder, *overrides: str) -> ValidationDocument:
    return run_validate(run.read_recipe([*overrides, "validate.images=300"]), run, QUIET)


def as_bf16(model: onnx.ModelProto) -> None:
    """One convolution in bf16 at the end, for which the CPU has no kernel."""
    weight = helper.make_tensor("bf16.weight", TensorProto.BFLOAT16, [4, 4, 1, 1], np.zeros(16, np.float32))
    logits = model.graph.output[0].name
    axes = helper.make_tensor("bf16.axes", TensorProto.INT64, [2], [2, 3])
    for node in model.graph.node:
        node.output[:] = ["plain" if name == logits else name for name in node.output]
    model.graph.initializer.extend([weight, axes])
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["plain"], ["bf16.a"], to=TensorProto.BFLOAT16),
            helper.make_node("Unsqueeze", ["bf16.a", "bf16.axes"], ["bf16.b"]),
            helper.make_node("Conv", ["bf16.b", "bf16.weight"], ["bf16.c"]),
            helper.make_node("Squeeze", ["bf16.c", "bf16.axes"], ["bf16.d"]),
            helper.make_node("Cast", ["bf16.d"], [logits], to=TensorProto.FLOAT),
        ]
    )
    model.opset_import[0].version = 22


def add_unrunnable(run: RunFolder) -> None:
    """A model that passes for fp8, which nothing stands in for."""
    model = onnx.load_from_string(open_bundle(run.bundle).model_path("fp32").read_bytes())
    as_bf16(model)
    gate.rewrite(run, models={"fp8": model.SerializeToString()})


def test_one_pass_over_the_images_feeds_all(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[int] = []
    real = torch_reference.preprocess_batch

    def counted(images, spec):  # type: ignore[no-untyped-def]
        prepared.append(len(images))
        return real(images, spec)

    monkeypatch.setattr(torch_reference, "preprocess_batch", counted)
    document = validated(run)
    assert list(document.accuracy) == [TORCH, FP32, FP16, INT8]
    assert sum(prepared) == 300
    assert max(prepared) == 16


def test_only_what_is_requested(run: RunFolder) -> None:
    document = validated(run, "validate.precisions=[int8, int8]")
    assert [one.runner for one in document.judgements] == [INT8]


def test_a_pair_without_torch(run: RunFolder) -> None:
    document = validated(run, f"validate.pair=['{FP32}', '{INT8}']")
    assert document.reference == FP32
    assert list(document.accuracy) == [FP32, INT8]
    (judgement,) = document.judgements
    assert {parity.reference for parity in judgement.parity} == {FP32, "golden.npz"}
    assert [check.name for check in document.checks] == ["pixel difference", "spec", "golden images", "labels"]


def test_torch_may_be_the_candidate(run: RunFolder) -> None:
    (judgement,) = validated(run, f"validate.pair=['{FP32}', '{TORCH}']").judgements
    assert (judgement.runner, judgement.verdict, judgement.size_mb) == (TORCH, "PASS", None)


@pytest.mark.parametrize(
    ("pair", "kind", "words"),
    [
        ((FP32, FP32), UsageError, "cannot be compared with itself"),
        ((TORCH, "onnxruntime:cpu:fp8"), UsageError, "no model of precision fp8; it holds fp16, fp32, int8"),
        (("torch:cpu:int8", FP32), UsageError, "validate.pair.*torch computes in fp32"),
        (("torch:cuda:fp32", FP32), EnvironmentProblem, "no CUDA device"),
        ((TORCH, "onnxruntime:cuda:fp32"), EnvironmentProblem, "cuda is not available"),
    ],
)
def test_a_pair_that_cannot_be(
    pair: tuple[str, str],
    kind: type[Exception],
    words: str,
    run: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("dskd_export.runtime.onnxruntime.cuda_gpus", lambda: ())
    with pytest.raises(kind, match=words):
        validated(run, f"validate.pair={json.dumps(pair)}")


def test_what_the_provider_has_no_kernel_for_is_not_run_and_never_passes(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    add_unrunnable(run)
    junit = run.path.parent / "ci/validation.xml"
    assert main(["validate", str(run.path), "--junit", str(junit)]) == 0
    document = read_document(run / "validation.json", ValidationDocument)
    assert [one.precision for one in document.judgements] == ["fp32", "fp16", "int8", "fp8"]
    fp8 = document.judgements[-1]
    assert (fp8.verdict, fp8.native, fp8.accuracy, fp8.checks) == ("NOT RUN", None, None, [])
    assert fp8.reason.startswith("model.fp8.onnx: ONNX Runtime cannot run the model on cpu: Could not find an")
    assert "onnxruntime:cpu:fp8 was not run" in " ".join(capsys.readouterr().err.split())
    suites = {suite.get("name"): suite for suite in ElementTree.parse(junit).getroot()}
    assert suites["onnxruntime:cpu:fp8"].get("skipped") == "1"
    assert suites[FP32].get("failures") == "0"
    assert suites[FP32].get("tests") == str(len(document.judgements[0].checks))


def test_what_is_requested_and_cannot_be_run_is_an_error(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    add_unrunnable(run)
    with pytest.raises(ProviderLacksKernel, match="Could not find an implementation"):
        validated(run, "validate.precisions=[fp8]")
    assert main(["validate", str(run.path), "--precision", "fp8"]) == 4
    assert "--precision" in capsys.readouterr().err
    assert not (run / "validation.json").exists()


def test_bf16_is_computed_through_fp32_where_no_kernel_is(run: RunFolder) -> None:
    bundle = open_bundle(run.bundle)
    inputs = bundle.golden().input
    images = Calibration(inputs, np.zeros(len(inputs), np.int64), tuple(map(str, range(len(inputs)))), 0)
    half = half_precision(bundle.model_path("fp32").read_bytes(), "bf16", images)
    gate.rewrite(run, models={"bf16": half.model})
    (bf16,) = validated(
        run, "validate.precisions=[bf16]", "budget.agreement=null", "budget.top1_drop=null"
    ).judgements
    assert bf16.verdict == "PASS"
    assert bf16.native is False
    assert bf16.native_reason == "computed in fp32 on cpu, rounded to bf16 after every node"
    assert bf16.parity[0].max_abs_relative > 1e-4  # it is rounded, and not fp32


def test_nothing_that_can_be_run(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> object:
        raise ProviderLacksKernel("no kernel for anything")

    monkeypatch.setattr(loader, "OnnxRuntimeRunner", none)
    with pytest.raises(EnvironmentProblem, match=r"None of the bundle.s precisions can be run here: model\.fp32"):
        validated(run)


def test_a_pass_that_was_computed_in_another_precision_says_so(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever this runs: the profile decides what is printed."""
    reason = "computed in fp32 on cpu: 0 of 9 convolutions and matrix products run in fp16"
    found = ComputePrecision(False, reason, "fp32")
    monkeypatch.setattr(loader, "find_compute_precision", lambda *_: found)
    assert main(["validate", str(run.path), "--precision", "fp16"]) == 0
    assert "onnxruntime:cpu:fp16 │ PASS    │ fp32 " in capsys.readouterr().out
    (judgement,) = read_document(run / "validation.json", ValidationDocument).judgements
    assert (judgement.verdict, judgement.computed_in) == ("PASS", "fp32")
    assert (judgement.native, judgement.native_reason) == (False, found.reason)


def test_a_perfect_model_on_few_images_is_not_shown_and_says_how_many_would_do(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 of 150 images lost, every image the same first class: neither PASS nor FAIL."""
    few = ["validate", str(run.path), "--precision", "fp16", "--images", "150"]
    loose = ["--set", "budget.student_drop=null"]
    assert main([*few, *loose]) == 6
    printed = capsys.readouterr()
    assert "onnxruntime:cpu:fp16: NOT SHOWN: 0 of 150 images lost; 390 images would show it." in printed.out
    assert "hint: Validate on 390 labelled images" in printed.err
    (judgement,) = read_document(run / "validation.json", ValidationDocument).judgements
    assert judgement.accuracy is not None
    assert (judgement.accuracy.lost, judgement.accuracy.agreement.value) == (0, 1.0)
    assert (judgement.verdict, judgement.computed_in, judgement.causes) == ("NOT SHOWN", "fp32", [])
    junit = run.path.parent / "validation.xml"
    assert main([*few, *loose, "--junit", str(junit), "--accept-unproven"]) == 0
    suites = {suite.get("name"): suite for suite in ElementTree.parse(junit).getroot()}
    fp16 = suites["onnxruntime:cpu:fp16"]
    (skipped,) = fp16.iter("skipped")
    assert str(skipped.get("message")).startswith("NOT SHOWN: ")
    assert fp16.get("failures") == "0"


def test_the_budget_of_one_precision(run: RunFolder) -> None:
    strict, loose = "budget.fp16.size_mb=0.001", "budget.top1_drop=null"
    document = validated(run, strict, loose, "validate.precisions=[fp32, fp16]")
    assert not document.passed
    fp32, fp16 = document.judgements
    assert (fp32.verdict, fp16.verdict) == ("PASS", "FAIL")
    assert [check.name for check in fp16.checks if check.failed] == ["size"]
    assert "top-1 drop" not in {check.name for check in fp16.checks}
    assert fp16.causes == []


def test_a_part_of_a_validation_does_not_count_as_the_whole(run: RunFolder) -> None:
    assert main(["validate", str(run.path), "--precision", "fp32"]) == 0
    assert run.read_recipe().validation.precisions == ("fp32",), "a flag is kept until it is taken back"
    whole = run.read_recipe(["validate.precisions=null"])
    (outcome,) = run_pipeline(whole, run, QUIET, first="validate", last="validate")
    assert (outcome.ran, outcome.why) == (True, "validate changed in the recipe")
    document = read_document(run / "validation.json", ValidationDocument)
    assert len(document.judgements) == 3


def test_a_class_without_images_can_be_validated(run: RunFolder) -> None:
    with np.load(run.read_recipe().data.source) as arrays:
        x, y, classes = arrays["x"], arrays["y"], arrays["classes"]
    some = run.path / "some.npz"
    np.savez(some, x=x[y != 2], y=y[y != 2], classes=classes)
    one = ("validate.precisions=[fp32]", "budget.student_drop=null")
    assert validated(run, f"data.source={some}", *one).passed


@pytest.mark.gpu
def test_on_a_gpu_fp16_is_computed_in_fp16_and_int8_is_not(run: RunFolder) -> None:
    document = run_validate(run.read_recipe(["validate.providers=[cuda]"]), run, QUIET)
    fp32, fp16, int8 = document.judgements
    assert [one.runner.split(":")[1] for one in document.judgements] == ["cuda"] * 3
    assert fp32.verdict == "PASS"
    assert fp16.native
    assert fp16.native_reason.endswith("run in fp16")
    assert int8.native is False  # ONNX Runtime's CUDA has no int8 convolutions: Q/DQ is a rounding there
    assert int8.native_reason.startswith("computed in fp32 on cuda")
