from __future__ import annotations

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper

from dskd_export.precision.half import half_precision
from dskd_export.precision.scoring import emulate_bf16, holds_bf16, logits_of_model


def _in_torch(model, images: np.ndarray) -> np.ndarray:
    """The same network in torch, which computes bf16 itself."""
    w = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()).bfloat16() for i in model.graph.initializer}
    x = torch.from_numpy(images).bfloat16()
    for layer in "123":
        x = F.relu(F.conv2d(x, w[f"w{layer}"], w[f"b{layer}"], padding=1))
    return F.linear(x.mean((2, 3)), w["head"], w["bias"]).float().numpy()


def test_it_computes_as_torch_does_in_bf16(cnn, calibration, unseen):
    half = onnx.load_from_string(half_precision(cnn.SerializeToString(), "bf16", calibration).model)
    emulated = logits_of_model(emulate_bf16(half), unseen)
    exact, torchs = logits_of_model(cnn, unseen), _in_torch(cnn, unseen)
    scale = np.abs(exact).max()
    # As far from fp32 as torch's bf16 is, and closer to torch's than either is to fp32.
    assert 1e-3 < np.abs(emulated - exact).max() / scale < 3e-2
    assert np.abs(emulated - torchs).mean() < 0.6 * np.abs(torchs - exact).mean()


def test_every_intermediate_is_a_bf16_number(cnn, calibration, unseen):
    half = onnx.load_from_string(half_precision(cnn.SerializeToString(), "bf16", calibration).model)
    model = emulate_bf16(half)
    model.graph.output.append(onnx.helper.make_tensor_value_info("r2", onnx.TensorProto.FLOAT, None))
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(["r2"], {"input": unseen})[0]
    assert not (values.view(np.uint32) & 0xFFFF).any()
    assert values.any()


def test_a_single_node_without_weights_is_seen(cnn, calibration, unseen):
    others = [node.name for node in cnn.graph.node if node.name != "relu2"]
    half = onnx.load_from_string(half_precision(cnn.SerializeToString(), "bf16", calibration, keep=others).model)
    assert not [item for item in half.graph.initializer if item.data_type == onnx.TensorProto.BFLOAT16]
    assert holds_bf16(half)
    assert not holds_bf16(cnn)
    difference = np.abs(logits_of_model(emulate_bf16(half), unseen) - logits_of_model(cnn, unseen)).max()
    assert 0 < difference / np.abs(logits_of_model(cnn, unseen)).max() < 3e-2
