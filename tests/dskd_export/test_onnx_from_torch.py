"""Export: nothing of the training is left in the student, and the same model gives the same bytes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from support import CLASSES, make_format, make_model
from torch import Tensor, nn

from dskd_compress.config import DskdMethod
from dskd_compress.methods import Pair, create_task
from dskd_compress.models import count_parameters
from dskd_compress.torch_runner import TorchRunner
from dskd_export.compare import compare_runners
from dskd_export.errors import ModelError
from dskd_export.onnx_from_torch import count_nodes, onnx_from_torch
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner

# CNN, depthwise CNN, norm in the head, class token, windows in NHWC, mixed.
STUDENTS = [
    ("resnet10t", 64),
    ("mobilenetv3_small_050", 64),
    ("test_convnext", 64),
    ("test_vit", 160),
    ("test_mambaout", 64),
    ("test_efficientnet", 64),
    ("test_byobnet", 64),
]


def export(model: nn.Module, size: int) -> bytes:
    return onnx_from_torch(model, input_size=(3, size, size), opset=20, metadata={"made": "here"})


@pytest.mark.parametrize(("name", "size"), STUDENTS, ids=[name for name, _ in STUDENTS])
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
    exported, of_plain = export(distilled, size), export(plain, size)
    assert count_nodes(exported) == count_nodes(of_plain)
    images = np.random.default_rng(0).normal(size=(8, 3, size, size)).astype(np.float32)
    with TorchRunner(distilled) as torch_runner, OnnxRuntimeRunner(exported, threads=1) as onnx_runner:
        for batch in (1, 3, 8):
            parity = compare_runners(torch_runner, onnx_runner, images, batch=batch)
            assert parity.max_abs_relative < 1e-4
            assert parity.top1_agreement == 1.0


def test_the_same_model_gives_the_same_bytes_and_stays_as_it_was() -> None:
    model = make_model("test_resnet").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = export(model, 32), export(model, 32)
    assert first == second
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_file_says_what_it_is_and_nothing_of_this_machine() -> None:
    exported = export(make_model("test_resnet"), 32)
    model = onnx.load_from_string(exported)
    assert {entry.key: entry.value for entry in model.metadata_props} == {"made": "here"}
    assert model.opset_import[0].version == 20
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == ["logits"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]] == [3, 32, 32]
    assert b"site-packages" not in exported
    assert b".py" not in exported


class DependsOnData(nn.Module):
    def forward(self, images_BCHW: Tensor) -> Tensor:
        if images_BCHW.sum() > 0:
            return images_BCHW.mean(dim=(2, 3))
        return images_BCHW.amax(dim=(2, 3))


def test_a_model_that_cannot_be_exported_says_how_it_was_traced() -> None:
    with pytest.raises(ModelError, match=r"cannot export DependsOnData, traced at batch 2 and 8x8"):
        export(DependsOnData(), 8)
