"""bf16 where no kernel computes it: the same graph in fp32, rounded to bf16 after every node.

ONNX Runtime's CPU provider has no bf16 convolution. Hardware that has one multiplies bf16 numbers,
adds up in fp32 and rounds the sum once; fp32 arithmetic on bf16 numbers with a rounding at the end
of each node is that, but for the order of the sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dskd_export.errors import require
from dskd_export.precision import graph


def holds_bf16(model: Any) -> bool:
    """Whether a model computes anything in bf16: with few nodes in it, no weight need be."""
    bf16 = require("onnx", "onnx").TensorProto.BFLOAT16
    return any(item.data_type == bf16 for item in model.graph.initializer) or any(
        attribute.name == "to" and attribute.i == bf16 for node in model.graph.node for attribute in node.attribute
    )


def emulate_bf16(model: Any) -> Any:
    """A bf16 model as one that any provider runs.

    Args:
        model: an onnx.ModelProto with fp32 inputs and outputs and bf16 tensors between; left as it is.

    Returns:
        Another model, with fp32 tensors that hold bf16 numbers.
    """
    onnx = require("onnx", "onnx")
    bf16, fp32 = onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT
    typed = onnx.shape_inference.infer_shapes(graph.copy(model))
    rounded = {value.name for value in typed.graph.value_info if value.type.tensor_type.elem_type == bf16}
    other = graph.copy(model)
    for item in other.graph.initializer:
        if item.data_type == bf16:
            item.CopyFrom(_widen(onnx, item))
    nodes: list[Any] = []
    for node in other.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t") and attribute.t.data_type == bf16:
                attribute.t.CopyFrom(_widen(onnx, attribute.t))
            if node.op_type in ("Cast", "CastLike") and attribute.name == "to" and attribute.i == bf16:
                attribute.i = fp32
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name in rounded:
                node.output[index] = f"{name}_unrounded"
                nodes.append(onnx.helper.make_node("Cast", [f"{name}_unrounded"], [f"{name}_bf16"], to=bf16))
                nodes.append(onnx.helper.make_node("Cast", [f"{name}_bf16"], [name], to=fp32))
    kept = [graph.copy(node) for node in nodes]  # copies outlive the list they are taken from
    del other.graph.node[:]
    other.graph.node.extend(kept)
    del other.graph.value_info[:]
    return other


def _widen(onnx: Any, tensor: Any) -> Any:
    values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
    return onnx.numpy_helper.from_array(values, tensor.name)
