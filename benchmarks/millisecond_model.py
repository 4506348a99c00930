"""A convolutional model of about a millisecond on one core, and longer ones of more blocks."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS, SIDE = 16, 56


def conv_chain(blocks: int) -> bytes:
    """Build a chain of equal convolutions, input [1, 16, 56, 56], serialised; ten blocks take about 1 ms."""
    rng = np.random.default_rng(0)
    nodes, weights, name = [], [], "input"
    for index in range(blocks):
        kernel = (rng.normal(size=(CHANNELS, CHANNELS, 3, 3)) / np.sqrt(9 * CHANNELS)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{index}"))
        nodes.append(helper.make_node("Conv", [name, f"w{index}"], [f"c{index}"], f"conv{index}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"a{index}"], f"relu{index}"))
        name = f"a{index}"
    shape = [1, CHANNELS, SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def image() -> np.ndarray:
    """Make its input."""
    return np.random.default_rng(1).normal(size=(1, CHANNELS, SIDE, SIDE)).astype(np.float32)
