from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest

from dskd_export.errors import MissingExtra
from dskd_export.precision import modelopt
from dskd_export.precision.half import half_precision
from dskd_export.precision.scoring import logits_of_model

PRODUCERS = ["modelopt", "onnxruntime"]


def _types(model: bytes) -> dict[str, int]:
    """Operator name -> type of its result, Casts left out."""
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
    types = {v.name: v.type.tensor_type.elem_type for v in (*proto.graph.value_info, *proto.graph.output)}
    return {
        n.name: types[n.output[0]] for n in proto.graph.node if n.op_type in ("Conv", "Gemm", "GlobalAveragePool")
    }


def _weights(model: bytes) -> set[int]:
    return {item.data_type for item in onnx.load_from_string(model).graph.initializer if len(item.dims) > 1}


@pytest.mark.parametrize("producer", PRODUCERS)
def test_fp16_is_in_the_types_and_close_to_fp32(cnn, half, unseen, producer):
    made = half("fp16", producer)
    proto = onnx.load_from_string(made.model)
    assert _weights(made.model) == {onnx.TensorProto.FLOAT16}
    assert _types(made.model)["conv2"] == onnx.TensorProto.FLOAT16
    # The interface stays as it was: a device feeds every precision alike.
    assert [v.type.tensor_type.elem_type for v in (*proto.graph.input, *proto.graph.output)] == [1, 1]
    reference, candidate = logits_of_model(cnn, unseen), logits_of_model(proto, unseen)
    worst = np.abs(candidate - reference).max() / np.abs(reference).max()
    assert 0 < worst < 5e-3  # 0 would mean that nothing was rounded
    assert producer[:4] in made.metadata.producer or "onnxconverter" in made.metadata.producer


@pytest.mark.parametrize("producer", PRODUCERS)
def test_what_would_overflow_stays_fp32_and_is_named(make_cnn, calibration, unseen, producer):
    model = make_cnn(overflow=1e5)
    half = half_precision(model.SerializeToString(), "fp16", calibration, producer=producer)
    assert {"conv2", "relu2", "conv3"} <= set(half.kept)
    assert "conv1" not in half.kept
    reference, candidate = (
        logits_of_model(model, unseen),
        logits_of_model(onnx.load_from_string(half.model), unseen),
    )
    assert np.abs(candidate - reference).max() / np.abs(reference).max() < 5e-3


@pytest.mark.parametrize("producer", PRODUCERS)
def test_named_nodes_stay_fp32(cnn, calibration, producer):
    half = half_precision(cnn.SerializeToString(), "fp16", calibration, keep=["conv3"], producer=producer)
    assert "conv3" in half.kept
    assert _types(half.model)["conv3"] == onnx.TensorProto.FLOAT
    assert _types(half.model)["conv1"] == onnx.TensorProto.FLOAT16


def test_bf16_raises_the_operator_set(half):
    made = half("bf16")
    assert made.opset == 22
    assert _weights(made.model) == {onnx.TensorProto.BFLOAT16}
    assert _types(made.model)["conv2"] == onnx.TensorProto.BFLOAT16


def test_bf16_spans_what_fp16_cannot(make_cnn, calibration):
    half = half_precision(make_cnn(overflow=1e5).SerializeToString(), "bf16", calibration)
    assert half.kept == ()


@pytest.mark.parametrize("producer", PRODUCERS)
def test_the_same_model_gives_the_same_bytes(cnn, calibration, half, producer):
    again = half_precision(cnn.SerializeToString(), "fp16", calibration, producer=producer)
    assert again.model == half("fp16", producer).model


def test_the_files_metadata_says_what_it_is(cnn, calibration):
    half = half_precision(cnn.SerializeToString(), "fp16", calibration, producer="onnxruntime")
    metadata = {item.key: item.value for item in onnx.load_from_string(half.model).metadata_props}
    assert metadata["dskd_spec"] == "kept"
    assert type(half.metadata).from_metadata(metadata, "file") == half.metadata


def test_without_modelopt(cnn, calibration, monkeypatch):
    monkeypatch.setattr(modelopt, "is_installed", lambda: False)
    assert "onnxconverter" in half_precision(cnn.SerializeToString(), "fp16", calibration).metadata.producer
    with pytest.raises(MissingExtra, match=r"dskd-compress\[quant\]"):
        half_precision(cnn.SerializeToString(), "bf16", calibration)


def test_what_tensorrt_has_not_in_bf16_stays_fp32(cnn, calibration):
    """Its parser refuses a HardSwish of bf16, and so would every MobileNetV3 be."""
    model = copy.deepcopy(cnn)
    next(node for node in model.graph.node if node.name == "relu2").op_type = "HardSwish"
    half = half_precision(model.SerializeToString(), "bf16", calibration)
    assert half.kept == ("relu2",)
