"""ONNX Runtime's profile: a planted one with known times, damaged ones, and those of real int8 models."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dskd_export.errors import EnvironmentProblem, ModelError
from dskd_export.runtime import onnxruntime_profile
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner
from dskd_export.runtime.onnxruntime_profile import AS_EXPORTED, OPTIMIZED, profile_onnx, time_nodes
from dskd_export.runtime.profile_events import read_events, split_calls

IMAGE = {"input": np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)}
RUN = {"cat": "Session", "name": "model_run", "dur": 1, "ts": 0}


def node(
    name: str, operator: str, us: float, provider: str = "CPUExecutionProvider", **more: Any
) -> dict[str, Any]:
    return {
        "cat": "Node",
        "name": f"{name}_kernel_time",
        "dur": us,
        "args": {"op_name": operator, "provider": provider, **more},
    }


def kernel(us: float, parent: str | None = None) -> dict[str, Any]:
    return {
        "cat": "Kernel",
        "name": "k",
        "dur": us,
        "args": {} if parent is None else {"parent_name": f"{parent}_kernel_time"},
    }


def test_the_nodes_of_each_call() -> None:
    weight = {"input_type_shape": [{"uint8": [1, 3, 8, 8]}, {"int8": [4, 3, 3, 3]}]}
    call = [
        {"cat": "Node", "name": "conv_fence_before", "dur": 99, "args": {"op_name": "Conv"}},
        node("conv", "QLinearConv", 7, **weight),
        node("", "Add", 2, node_index="5"),
        node("loop", "Loop", 1000),
    ]
    first, second = split_calls(
        [{"cat": "Session", "name": "session_initialization"}, *call, RUN, call[1], RUN], 2
    )
    found = time_nodes(first, "cpu")
    assert [(one.name, one.operator, one.microseconds, one.number_type) for one in found] == [
        ("conv", "QLinearConv", 7.0, "int8"),
        ("Add 5", "Add", 2.0, None),
    ]
    assert len(time_nodes(second, "cpu")) == 1


def test_on_a_gpu_kernels_count_and_not_their_launch() -> None:
    cuda = "CUDAExecutionProvider"
    events = [
        node("conv", "Conv", 500, cuda),
        kernel(30, "conv"),
        kernel(12, "conv"),
        node("shape", "Shape", 3),
        node("conv", "Conv", 400, cuda),
        kernel(5, "conv"),
        kernel(8),
    ]
    assert [(one.name, one.microseconds) for one in time_nodes(events, "cuda")] == [
        ("conv", 42.0),
        ("shape", 3.0),
        ("conv", 5.0),
        ("k", 8.0),
    ]
    with pytest.raises(EnvironmentProblem, match="no kernel times on cuda"):
        time_nodes([node("conv", "Conv", 500, cuda)], "cuda")


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "null", "[1]", '{"cat": "Node"}', "[" * 100_000, "\udcff", '[{"cat": "Node"'),
        json.dumps([RUN]),
        json.dumps([RUN] * 9),
        *(
            json.dumps([{"cat": "Node", "name": "a_kernel_time", "args": {"op_name": "Conv"}, **bad}, RUN] * 5)
            for bad in ({}, {"dur": "3"}, {"dur": -1}, {"dur": True}, {"dur": None}, {"dur": float("nan")})
        ),
    ],
)
def test_a_damaged_profile_is_an_error_of_ours(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text, errors="surrogateescape")
    monkeypatch.setattr(OnnxRuntimeRunner, "end_profile", lambda self: path)
    with pytest.raises(ModelError):
        profile_onnx(make_model(), "cpu", "fp32", IMAGE, calls=3, warmup_calls=2, threads=1)


@pytest.mark.parametrize("args", [None, 3, [], {"op_name": 3}, {"input_type_shape": {"a": 1}, "op_name": "Conv"}])
def test_odd_facts_of_a_node_lose_its_facts_alone(args: Any) -> None:
    (found,) = time_nodes([{"cat": "Node", "name": "a_kernel_time", "dur": 4, "args": args}], "cpu")
    assert (found.name, found.microseconds, found.number_type) == ("a", 4.0, None)


def test_a_profile_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        read_events(tmp_path / "none.json")


def test_tensorrt_in_onnx_runtime_is_one_node() -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        profile_onnx(make_model(), "tensorrt", "fp32", IMAGE, calls=3, warmup_calls=0)
    assert "dskd-compress build" in str(caught.value.hint)


def make_model(quantized: bool = False) -> bytes:
    """A convolution, a Relu that nothing fuses into it, and a pooling; with Q/DQ around the convolution."""
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    constants = [numpy_helper.from_array(weight, "w")]
    nodes = [helper.make_node("Conv", ["input", "w"], ["y"], name="conv", kernel_shape=[3, 3])]
    if quantized:
        scale = np.float32(0.05)
        levels = np.clip(np.round(weight / scale), -127, 127).astype(np.int8)
        constants = [
            numpy_helper.from_array(levels, "w8"),
            numpy_helper.from_array(np.asarray(scale), "s"),
            numpy_helper.from_array(np.asarray(np.int8(0)), "z"),
        ]
        nodes = [
            helper.make_node("QuantizeLinear", ["input", "s", "z"], ["xq"], name="input_QuantizeLinear"),
            helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["x"], name="input_DequantizeLinear"),
            helper.make_node("DequantizeLinear", ["w8", "s", "z"], ["w"], name="w_DequantizeLinear"),
            helper.make_node("Conv", ["x", "w"], ["c"], name="conv", kernel_shape=[3, 3]),
            helper.make_node("QuantizeLinear", ["c", "s", "z"], ["yq"], name="y_QuantizeLinear"),
            helper.make_node("DequantizeLinear", ["yq", "s", "z"], ["y"], name="y_DequantizeLinear"),
        ]
    nodes += [
        helper.make_node("Sigmoid", ["y"], ["r"], name="act"),
        helper.make_node("GlobalAveragePool", ["r"], ["logits"], name="pool"),
    ]
    graph = helper.make_graph(
        nodes,
        "conv",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4, 1, 1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def test_the_qdq_nodes_of_a_real_model_are_found() -> None:
    found = profile_onnx(make_model(quantized=True), "cpu", "int8", IMAGE, calls=4, warmup_calls=2, threads=1)
    assert (len(found.calls), len(found.call_ms), found.graph) == (4, 4, OPTIMIZED)
    for call in found.calls:
        operators = Counter(layer.operator for layer in call)
        assert operators["QuantizeLinear"] == 1, operators
        assert operators["QLinearConv"] == 1, "the pairs around the convolution are fused into it"
        assert operators["DequantizeLinear"] == 1
        assert {layer.number_type for layer in call if "Conv" in layer.operator} == {"int8"}
        assert all(layer.microseconds >= 0 for layer in call)
    # No node takes longer than the call that it is in.
    for call, ms in zip(found.calls, found.call_ms, strict=True):
        assert sum(layer.microseconds for layer in call) <= 1e3 * ms


def test_without_the_optimizer_all_nodes_are_those_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    real = OnnxRuntimeRunner

    def unoptimised(*args: Any, **options: Any) -> OnnxRuntimeRunner:
        return real(*args, **options, optimise=False)

    monkeypatch.setattr(onnxruntime_profile, "OnnxRuntimeRunner", unoptimised)
    found = profile_onnx(make_model(quantized=True), "cpu", "int8", IMAGE, calls=3, warmup_calls=1, threads=1)
    assert found.graph == AS_EXPORTED
    for call in found.calls:
        operators = Counter(layer.operator for layer in call)
        assert (operators["QuantizeLinear"], operators["DequantizeLinear"]) == (2, 3)
        assert {layer.number_type for layer in call if layer.operator == "Conv"} == {"fp32"}
