from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from export_support import count_nodes, count_parameters
from run_support import QUIET, Finished, small_recipe
from safetensors.torch import load_file
from torch import nn

from dskd_compress.data import iter_images, open_data
from dskd_compress.run_folder import RunFolder
from dskd_compress.stages import export
from dskd_compress.stages.benchmark import run_benchmark
from dskd_compress.stages.export import run_export
from dskd_compress.stages.validate import run_validate
from dskd_compress.timm_import import import_timm
from dskd_compress.weights import load_trained
from dskd_export.bundle import Bundle, open_bundle
from dskd_export.documents.base import read_document
from dskd_export.documents.validation import ValidationDocument
from dskd_export.errors import DataError, MissingExtra, ModelError
from dskd_export.onnx_from_torch import onnx_from_torch
from dskd_export.onnx_from_torch.pack import OnnxModel


@pytest.fixture(scope="module")
def bundle(finished: Finished) -> Bundle:
    return open_bundle(finished.folder.bundle)


def session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def test_the_bundle_opens_and_holds_exactly_what_it_should(bundle: Bundle) -> None:
    assert bundle.precisions == ("fp32",)
    names = {path.name for path in bundle.folder.iterdir()}
    assert names == {"manifest.json", "spec.json", "labels.txt", "golden.npz", "model.fp32.onnx"}
    assert (bundle.folder / "labels.txt").read_text().splitlines() == list(bundle.spec.classes)


def test_the_spec(bundle: Bundle, finished: Finished) -> None:
    spec = bundle.spec
    weights = finished.folder / "student.safetensors"
    _, info = load_trained(weights)
    assert (spec.architecture, spec.height, spec.width, spec.opset) == ("test_efficientnet", 32, 32, 20)
    assert (spec.mean, spec.std, spec.interpolation) == (info.mean, info.std, info.interpolation)
    assert (spec.crop_pct, spec.crop_mode, spec.classes) == (info.crop_pct, info.crop_mode, info.classes)
    assert spec.student_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_the_model_carries_the_same_spec(bundle: Bundle) -> None:
    model = onnx.load(str(bundle.model_path("fp32")))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["dskd_spec"]) == json.loads((bundle.folder / "spec.json").read_text())
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 20
    (image,), (logits,) = model.graph.input, model.graph.output
    assert (image.name, logits.name) == ("input", "logits")
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim][1:] == [3, 32, 32]
    assert image.type.tensor_type.shape.dim[0].dim_param


def test_golden_logits_are_those_of_a_fresh_session(bundle: Bundle) -> None:
    golden = bundle.golden()
    (logits_BK,) = session(bundle.model_path("fp32")).run(["logits"], {"input": golden.input})
    assert np.abs(logits_BK - golden.logits).max() < 1e-5 * np.abs(golden.logits).max()


def test_golden_logits_are_those_of_plain_timm(bundle: Bundle, finished: Finished) -> None:
    model = import_timm().create_model("test_efficientnet", num_classes=10).eval()
    model.load_state_dict(load_file(finished.folder / "student.safetensors"), strict=True)
    golden = bundle.golden()
    with torch.no_grad():
        logits_BK = model(torch.from_numpy(golden.input)).numpy()
    np.testing.assert_allclose(logits_BK, golden.logits, rtol=1e-4, atol=1e-5 * np.abs(golden.logits).max())


def test_distilling_costs_the_device_nothing(bundle: Bundle, finished: Finished) -> None:
    """The bundle's graph is, to the byte, that of the plain timm model with the student's weights in it."""
    model = import_timm().create_model("test_efficientnet", num_classes=10).eval()
    model.load_state_dict(load_file(finished.folder / "student.safetensors"), strict=True)
    plain = onnx_from_torch(model, bundle.spec).model
    ours = OnnxModel("model.fp32.onnx", bundle.model_path("fp32").read_bytes())
    assert (count_nodes(ours), count_parameters(ours)) == (count_nodes(plain), count_parameters(plain))
    assert ours.proto == plain.proto
    bare = torch.onnx.export(model, (torch.zeros(2, 3, 32, 32),), dynamo=True, dynamic_shapes=({0: "batch"},))
    assert bare is not None
    assert _kinds(onnx.load_from_string(ours.proto)) == _kinds(bare.model_proto)


def _kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def test_pixels_in_and_probabilities_out(bundle: Bundle, finished: Finished, tmp_path: Path) -> None:
    """Normalisation and softmax in the graph: the same answers, and all later stages know."""
    folder = finished.copy(tmp_path / "run")
    options = ("export.input=uint8", "export.layout=NHWC", "export.softmax=true", "export.teacher=false")
    recipe = small_recipe(*options, "benchmark.teacher=false")
    run_export(recipe, folder, QUIET)
    changed = open_bundle(folder.bundle)
    spec, golden, before = changed.spec, changed.golden(), bundle.golden()
    assert (spec.input_dtype, spec.input_layout, spec.output_name) == ("uint8", "NHWC", "probabilities")
    assert (golden.input.dtype, golden.input.shape) == (np.uint8, (5, 32, 32, 3))
    (shares_BK,) = session(changed.model_path("fp32")).run(["probabilities"], {"input": golden.input})
    np.testing.assert_allclose(shares_BK.sum(axis=1), 1, rtol=1e-5)
    exponents_BK = np.exp(before.logits.astype(np.float64))
    np.testing.assert_allclose(shares_BK, exponents_BK / exponents_BK.sum(axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(np.exp(golden.logits), shares_BK, atol=1e-5)
    document = run_validate(recipe, folder, QUIET)
    assert document.passed
    first = read_document(finished.folder / "validation.json", ValidationDocument)
    assert list(document.accuracy.values()) == list(first.accuracy.values())
    rows = run_benchmark(recipe, folder, QUIET).rows
    assert {row.runner for row in rows} == {"torch", "onnxruntime"}


def test_golden_images_are_real_ones_of_the_validation_set(bundle: Bundle, finished: Finished) -> None:
    golden = bundle.golden()
    assert len(golden.labels) == 5
    assert len(set(golden.labels.tolist())) == 5  # spread over the classes
    known = {
        hashlib.sha256(image.tobytes()).hexdigest(): label
        for image, label, _ in iter_images(open_data(finished.recipe.data, 0).val)
    }
    assert [known[sha] for sha in golden.image_sha256] == golden.labels.tolist()


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_batch_is_free(batch: int, bundle: Bundle) -> None:
    golden = bundle.golden()
    (logits_BK,) = session(bundle.model_path("fp32")).run(None, {"input": golden.input[:batch]})
    np.testing.assert_allclose(logits_BK, golden.logits[:batch], rtol=1e-3, atol=1e-4)


def test_where_it_comes_from(bundle: Bundle, finished: Finished) -> None:
    found = bundle.manifest.provenance
    assert found.student_sha256 == bundle.spec.student_sha256
    assert (found.student, found.teacher, found.method) == ("test_efficientnet", "test_resnet", "dskd")
    assert (found.recipe, found.seed) == ("small", 0)
    assert found.teacher_weights == "random, then trained on the data"
    assert found.data_sha256 == open_data(finished.recipe.data, 0).facts().sha256
    assert found.versions.keys() >= {"dskd-compress", "torch", "timm", "onnx"}
    assert found.licenses.teacher.name is None
    assert bundle.manifest.models["fp32"].producer == f"torch.onnx dynamo {found.versions['torch']}"
    text = (bundle.folder / "manifest.json").read_text()
    assert str(finished.folder.path) not in text


@pytest.mark.parametrize(
    ("overrides", "weights"),
    [
        (["teacher.train=null", "teacher.checkpoint=/secret/t.pth"], "a checkpoint of one's own"),
        (["teacher.train=null", "teacher.pretrained=true"], "pretrained"),
        (["teacher.pretrained=true"], "pretrained, then trained on the data"),
    ],
)
def test_the_weights_of_the_teacher(overrides: list[str], weights: str) -> None:
    assert export._teacher_weights(small_recipe(*overrides)) == weights


def test_two_exports_in_two_folders_have_the_same_bytes(finished: Finished, tmp_path: Path) -> None:
    found = []
    for place in ("one", "somewhere/else"):
        folder = finished.copy(tmp_path / place / "run")
        run_export(small_recipe("export.teacher=false"), folder, QUIET)
        found.append({path.name: path.read_bytes() for path in folder.bundle.iterdir()})
    assert found[0] == found[1]


def test_the_teacher_beside_it_is_the_teacher(bundle: Bundle, finished: Finished) -> None:
    teacher, _ = load_trained(finished.folder / "teacher.safetensors")
    images_BCHW = bundle.golden().input
    (logits_BK,) = session(finished.folder / "teacher.fp32.onnx").run(None, {"input": images_BCHW})
    with torch.no_grad():
        expected = teacher(torch.from_numpy(images_BCHW)).numpy()
    assert np.abs(logits_BK - expected).max() < 1e-5 * np.abs(expected).max()


def test_without_the_teacher_and_again_with_the_same_bytes(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    before = (folder / "bundle/model.fp32.onnx").read_bytes()
    manifest = run_export(small_recipe("export.teacher=false", "export.golden_images=3"), folder, QUIET)
    assert not (folder / "teacher.fp32.onnx").exists()
    assert (folder / "bundle/model.fp32.onnx").read_bytes() == before
    assert set(manifest.files) == {"spec.json", "labels.txt", "golden.npz", "model.fp32.onnx"}
    assert len(open_bundle(folder.bundle).golden().labels) == 3
    record = json.loads((folder / "stages/export.json").read_text())
    assert set(record["outputs"]) == {
        "export.json",
        *(f"bundle/{name}" for name in [*manifest.files, "manifest.json"]),
    }


def test_there_is_no_student_yet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"student\.safetensors.*dskd-compress distill"):
        run_export(small_recipe(), RunFolder(tmp_path), QUIET)


def test_data_of_other_classes(finished: Finished, tmp_path: Path) -> None:
    """The bundle would name classes that its golden labels do not mean."""
    folder = finished.copy(tmp_path / "run")
    np.savez(
        tmp_path / "letters.npz",
        x=np.zeros((20, 8, 8), dtype=np.uint8),
        y=np.arange(20) % 10,
        classes=[f"letter {index}" for index in range(10)],
    )
    with pytest.raises(DataError, match=r"student\.safetensors.*letters\.npz"):
        run_export(small_recipe(f"data.source={tmp_path / 'letters.npz'}"), folder, QUIET)
    assert open_bundle(folder.bundle).spec.classes[0] == "0"


def test_a_missing_extra(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"onnx .*dskd-compress\[onnx\]"):
        run_export(finished.recipe, finished.folder, QUIET)


class DependsOnTheData(nn.Module):
    """What no tracer can follow: a Python branch on a pixel."""

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        pooled_BC = images_BCHW.mean(dim=(2, 3))
        return pooled_BC if float(pooled_BC[0, 0]) > 0 else -pooled_BC


def test_a_student_that_cannot_be_exported_leaves_the_old_bundle(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished.copy(tmp_path / "run")
    _, info = load_trained(folder / "student.safetensors")
    monkeypatch.setattr(export, "load_trained", lambda path: (DependsOnTheData(), info))
    before = (folder / "bundle/manifest.json").read_bytes()
    with pytest.raises(ModelError, match=r"test_efficientnet"):
        run_export(finished.recipe, folder, QUIET)
    assert (folder / "bundle/manifest.json").read_bytes() == before
    open_bundle(folder.bundle)
