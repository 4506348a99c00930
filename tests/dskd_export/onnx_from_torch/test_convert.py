"""Export: nothing of the training is left in the student, and no step may change what it computes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from export_support import count_nodes, export, exported_once, load, make_spec, random_images, run, steps
from support import CLASSES, compare_runners, make_format, make_model
from torch import Tensor, nn

from dskd_compress.config import DskdMethod
from dskd_compress.methods import Pair, create_task
from dskd_compress.models import count_parameters
from dskd_compress.torch_runner import TorchRunner
from dskd_export.bundle.manifest import weights_name
from dskd_export.errors import ModelError
from dskd_export.onnx_from_torch import convert
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner

# CNN, depthwise CNN, norm in the head, class token, windows in NHWC, mixed.
STUDENTS = [
    ("resnet10t", 64),
    ("test_vit", 160),
    *(
        pytest.param(name, 64, marks=pytest.mark.slow)
        for name in ("mobilenetv3_small_050", "test_convnext", "test_mambaout", "test_byobnet")
    ),
]


@pytest.mark.parametrize(("name", "size"), STUDENTS)
def test_a_distilled_student_is_a_plain_timm_model(name: str, size: int) -> None:
    """After a real DSKD step: same parameters, same keys, same graph; and its logits agree at any batch."""
    student = make_model(name)
    format = make_format(size)
    pair = Pair(student, format, make_model("test_resnet", seed=1), format)
    task = create_task(
        DskdMethod(tap="vector"), student, pair, label_smoothing=0.0, seed=0, device=torch.device("cpu")
    )
    task.train()
    optimizer = torch.optim.SGD(task.module.parameters(), lr=0.01)
    result = task(torch.randn(4, 3, size, size), torch.randint(CLASSES, (4,)))
    result["loss"].backward()
    optimizer.step()
    distilled = task.get_eval_model().eval()

    plain = make_model(name).eval()
    assert count_parameters(distilled) == count_parameters(plain)
    assert list(distilled.state_dict()) == list(plain.state_dict())
    exported, of_plain = export(distilled, size), exported_once(name, size)
    assert count_nodes(exported.model) == count_nodes(of_plain.model)
    images = random_images(8, size, seed=5)
    with (
        TorchRunner(distilled) as torch_runner,
        OnnxRuntimeRunner(exported.model.proto, threads=1) as onnx_runner,
    ):
        for batch in (1, 3, 8):
            parity = compare_runners(torch_runner, onnx_runner, images, batch=batch)
            assert parity.max_abs_relative < 1e-4
            assert parity.top1_agreement == 1.0


def test_the_same_model_gives_the_same_bytes_and_stays_as_it_was() -> None:
    model = make_model("test_resnet").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert export(model) == exported_once("test_resnet")
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_other_processes_give_the_same_bytes() -> None:
    """Whatever the order of Python's sets there."""
    script = (
        "import hashlib, sys\n"
        "from export_support import export\n"
        "from support import make_model\n"
        "model = export(make_model('test_vit'), 160).model\n"
        "print(hashlib.sha256(model.proto).hexdigest())\n"
    )
    helpers = Path(__file__).resolve().parents[2] / "helpers"
    digests = set()
    for seed in ("1", "2"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join([str(helpers), *sys.path]),
        }
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
        )
        digests.add(done.stdout.split()[-1])
    assert len(digests) == 1


def test_the_file_says_what_it_is_and_nothing_of_this_machine() -> None:
    exported = export(make_model("test_resnet"), metadata={"made": "here"}).model
    model = load(exported)
    assert {entry.key: entry.value for entry in model.metadata_props} == {"made": "here"}
    assert model.opset_import[0].version == 20
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == ["logits"]
    batch, *rest = model.graph.input[0].type.tensor_type.shape.dim
    assert batch.dim_param == "batch"
    assert [d.dim_value for d in rest] == [3, 32, 32]
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert b"site-packages" not in exported.proto
    assert b".py" not in exported.proto


def test_the_spec_is_in_the_metadata() -> None:
    spec = make_spec(32)
    model = load(exported_once("test_resnet").model)
    assert {entry.key: entry.value for entry in model.metadata_props} == spec.to_metadata()


def test_nodes_are_named_by_their_modules() -> None:
    model = make_model("test_resnet")
    names = [node.name for node in load(exported_once("test_resnet").model).graph.node]
    modules = dict(model.named_modules())
    assert len(set(names)) == len(names)
    convolutions = [name.rpartition("/")[0] for name in names if name.split("/")[-1].startswith("Conv")]
    assert convolutions
    assert all(isinstance(modules[name], nn.Conv2d) for name in convolutions)


@pytest.mark.parametrize("opset", [18, pytest.param(19, marks=pytest.mark.slow), 20, 21])
def test_operator_sets(opset: int) -> None:
    model = make_model("test_vit").eval()
    exported = export(model, 160, opset=opset).model
    assert {entry.domain: entry.version for entry in load(exported).opset_import}[""] == opset
    images = random_images(3, 160)
    with torch.no_grad():
        expected = model(torch.from_numpy(images)).numpy()
    assert np.abs(run(exported, images) - expected).max() < 1e-5 * np.abs(expected).max()


def test_batch_norm_is_folded_into_the_convolutions() -> None:
    kinds = Counter(node.op_type for node in load(exported_once("resnet10t", 64).model).graph.node)
    assert kinds["Conv"] > 5
    assert kinds["BatchNormalization"] == 0


def test_every_step_is_recorded() -> None:
    exported = exported_once("test_vit", 160)
    in_torch = ["exportable activations", "reparameterise", "unfused attention"]
    names = [*in_torch, "torch.onnx dynamo", "onnxscript optimizer"]
    assert [step.name for step in exported.passes] == names
    found = steps(exported)
    assert found["reparameterise"].reason == "nothing to do"
    assert all(found[name].applied and found[name].max_abs_relative < 1e-5 for name in names[2:])
    assert exported.max_abs_relative == found["onnxscript optimizer"].max_abs_relative
    written = exported.provenance()
    assert written["exporter"] == "torch.onnx dynamo"
    assert written["passes"][0] == {
        "name": "exportable activations",
        "applied": False,
        "max_abs_relative": None,
        "reason": "nothing to do",
    }


def spoil(graph: object, factor: float) -> object:
    """A pass with a bug: one weight of the graph is another."""
    import onnx_ir as ir

    graph = graph.clone()  # type: ignore[attr-defined]
    value = next(value for name, value in graph.graph.initializers.items() if name.endswith("weight"))
    value.const_value = ir.tensor(value.const_value.numpy() * np.float32(factor))
    return graph


@pytest.mark.parametrize(
    ("bug", "reason"),
    [
        (lambda graph: spoil(graph, 1.01), "the output differs by"),
        (lambda graph: spoil(graph, np.nan), "not finite"),
        (lambda graph: graph.nothing, "AttributeError"),
    ],
    ids=["wrong", "nan", "crash"],
)
def test_a_pass_that_breaks_the_model_is_named_and_left_out(
    bug: object, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("test_resnet")
    good = exported_once("test_resnet")
    real = convert.graph_passes

    def with_bug(*, slim: bool) -> dict[str, object]:
        return {**real(slim=slim), "careless": bug}

    monkeypatch.setattr(convert, "graph_passes", with_bug)
    exported = export(model)
    assert exported.model == good.model
    careless = steps(exported)["careless"]
    assert not careless.applied
    assert reason in careless.reason


def test_an_exporter_that_makes_another_function_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = convert.trace
    monkeypatch.setattr(convert, "trace", lambda *arguments: spoil(real(*arguments), 1.01))
    with pytest.raises(ModelError, match=r"differ by .*--exporter legacy"):
        export(make_model("test_resnet"))


def test_weights_that_are_broken() -> None:
    model = make_model("test_resnet")
    next(model.parameters()).data[0] = torch.nan
    with pytest.raises(ModelError, match="gives NaN or Inf"):
        export(model)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_the_legacy_exporter(name: str) -> None:
    model = make_model(name).eval()
    exported = export(model, exporter="legacy")
    assert exported.provenance()["exporter"] == "torch.onnx legacy"
    assert load(exported.model).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    images = random_images(5)
    with torch.no_grad():
        expected = model(torch.from_numpy(images)).numpy()
    assert np.abs(run(exported.model, images) - expected).max() < 1e-5 * np.abs(expected).max()
    assert export(model, exporter="legacy") == exported


def test_onnxslim_only_when_asked() -> None:
    model = make_model("test_vit").eval()
    plain, slim = exported_once("test_vit", 160), export(model, 160, slim=True)
    assert "onnxslim" not in steps(plain)
    assert steps(slim)["onnxslim"].applied
    assert count_nodes(slim.model) <= count_nodes(plain.model)
    assert export(model, 160, slim=True) == slim


def test_large_weights_lie_beside_the_graph(tmp_path: Path) -> None:
    model = make_model("test_resnet").eval()
    single = exported_once("test_resnet").model
    exported = export(model, max_single_file_bytes=100_000, file_name="model.fp32.onnx")
    assert exported.max_abs_relative < 1e-5
    split = exported.model
    assert split.weights is not None
    assert len(split.proto) < 100_000
    assert len(split.weights) > 1_000_000
    path = split.write(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"model.fp32.onnx", "model.fp32.onnx.data"}
    locations = {
        entry.value
        for tensor in load(split).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert locations == {weights_name("model.fp32.onnx")}
    images = random_images(3)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": images})
    np.testing.assert_array_equal(found, run(single, images))
    onnx.checker.check_model(str(path), full_check=True)
    assert export(model, max_single_file_bytes=100_000).model == split
    assert b"site-packages" not in split.proto


class DependsOnData(nn.Module):
    def forward(self, images_BCHW: Tensor) -> Tensor:
        if images_BCHW.sum() > 0:
            return images_BCHW.mean(dim=(2, 3))
        return images_BCHW.amax(dim=(2, 3))


class Net(nn.Module):
    """The module that fails lies in another one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.blocks = nn.Sequential(nn.ReLU(), DependsOnData())

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.blocks(self.stem(images_BCHW))


def test_a_model_that_cannot_be_exported_says_where_and_why() -> None:
    with pytest.raises(
        ModelError,
        match=r"torch\.onnx \(dynamo\) cannot export resnet18, traced at batch 2 and 8x8: "
        r"in blocks\.1 \(DependsOnData\): .*data-dependent.*--exporter legacy",
    ):
        export(Net(), 8)


class Unknown(nn.Module):
    """An operator that ONNX has no translation of."""

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return torch.linalg.eigvals(images_BCHW.mean(1)).real


def test_an_operator_that_onnx_does_not_have() -> None:
    with pytest.raises(ModelError, match=r"in 0 \(Unknown\), aten\.linalg_eig\.default: .*No ONNX function"):
        export(nn.Sequential(Unknown(), nn.Linear(8, 2)), 8)
