"""fp16 and bf16: half-precision tensors in the graph, with the inputs and outputs left fp32.

Which nodes stay fp32 is decided by what their tensors hold on real images. fp16 ends at 65,504 and
loses small values long before, so a tensor whose largest value comes near it keeps its node in fp32.
bf16 has the range of fp32 and needs no such list, but an operator set of 22 (ONNX 1.17: the first
whose Conv takes bf16).
"""

from __future__ import annotations

import importlib.metadata
import re
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dskd_export.documents.precision import PrecisionMetadata
from dskd_export.errors import UsageError, require
from dskd_export.precision import graph, modelopt
from dskd_export.precision.calibration import Calibration, tensor_ranges

BF16_OPSET = 22
# A hundredth of fp16's largest value: sums of that many tensor elements still fit.
DATA_MAX = 512.0
# Enough to see the ranges; ranges of more images hardly grow.
RANGE_IMAGES = 32
# In TensorRT these are fp32 or fp16 only: measured with the parser of TensorRT-RTX 1.7.1. They stay fp32.
NOT_IN_BF16 = ("HardSwish", "Mish", "LpNormalization")
_FP32_MAX = float(np.finfo(np.float32).max)
# Without range analysis of the operation's inside, what adds up many values stays fp32.
SUMS = ("LayerNormalization", "GroupNormalization", "InstanceNormalization", "Softmax", "LogSoftmax")
REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "GlobalAveragePool")


@dataclass(frozen=True)
class Half:
    """A model of half precision.

    Attributes:
        model: serialised.
        metadata: what made it.
        kept: names of the nodes that stayed fp32, casts not among them.
        opset: of the result.
    """

    model: bytes
    metadata: PrecisionMetadata
    kept: tuple[str, ...]
    opset: int


def half_precision(
    model: bytes,
    precision: Literal["fp16", "bf16"],
    calibration: Calibration,
    *,
    keep: Sequence[str] = (),
    producer: Literal["auto", "modelopt", "onnxruntime"] = "auto",
) -> Half:
    """Convert an fp32 classifier to half precision.

    Args:
        model: serialised fp32 ONNX model with one input and one output.
        precision: `fp16` or `bf16`.
        calibration: images whose tensors decide what stays fp32.
        keep: names of nodes that have to stay fp32.
        producer: `modelopt`: AutoCast; `onnxruntime`: onnxconverter-common with the ranges that
            ONNX Runtime measures; `auto`: the first where it is installed.

    Raises:
        MissingExtra: neither tool is installed, or ModelOpt is not and bf16 needs it.
        UsageError: bf16 with `onnxruntime` as its producer.
        ModelError: the tool failed, or the model has more than 1.9 GB.
    """
    source = graph.load(model)
    name = source.graph.input[0].name
    inputs = {name: np.ascontiguousarray(calibration.input_N[:RANGE_IMAGES])}
    if precision == "bf16":
        keep = (*keep, *(node.name for node in source.graph.node if node.op_type in NOT_IN_BF16))
    if producer == "modelopt" or (producer == "auto" and (modelopt.is_installed() or precision == "bf16")):
        made = modelopt.run(
            "autocast",
            source,
            inputs=inputs,
            precision=precision,
            keep=[f"^{re.escape(node)}$" for node in keep],
            data_max=DATA_MAX if precision == "fp16" else _FP32_MAX,
            init_max=float(np.finfo(np.float16).max) if precision == "fp16" else _FP32_MAX,
            opset=max(graph.opset_of(source), BF16_OPSET) if precision == "bf16" else graph.opset_of(source),
        )
        tool = f"{modelopt.version()} autocast"
    elif precision == "bf16":
        raise UsageError("bf16 is made by ModelOpt only.", "Set export.quantize.producer=auto.")
    else:
        made = _convert_by_onnxconverter(source, inputs, keep)
        tool = f"onnxconverter-common {importlib.metadata.version('onnxconverter-common')}"
    metadata = PrecisionMetadata(precision=precision, rest="fp32", producer=tool)
    return Half(graph.finish(made, metadata, source), metadata, fp32_nodes(source, made), graph.opset_of(made))


def _convert_by_onnxconverter(source: Any, inputs: dict[str, Any], keep: Collection[str]) -> Any:
    """By onnxconverter-common, with what must not overflow left out."""
    float16 = require("onnxconverter_common.float16", "quant")
    largest = {name: bounds.largest for name, bounds in tensor_ranges(source, inputs).items()}
    blocked = [
        node.name
        for node in source.graph.node
        if node.name in keep
        or max((largest.get(t, 0.0) for t in (*node.input, *node.output)), default=0) > DATA_MAX
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of every weight below fp16's smallest number
        return float16.convert_float_to_float16(
            graph.copy(source),
            keep_io_types=True,
            op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *SUMS, *REDUCTIONS],
            node_block_list=blocked,
        )


def fp32_nodes(source: Any, made: Any) -> tuple[str, ...]:
    """Nodes of the fp32 model whose results are still fp32, in the order of the graph."""
    onnx = require("onnx", "onnx")
    typed = onnx.shape_inference.infer_shapes(made)
    types = {
        value.name: value.type.tensor_type.elem_type for value in (*typed.graph.value_info, *typed.graph.output)
    }
    outputs = {node.name: list(node.output) for node in typed.graph.node}
    casts = {node.input[0] for node in typed.graph.node if node.op_type == "Cast"}
    ends = {value.name for value in typed.graph.output}
    return tuple(
        node.name
        for node in source.graph.node
        for result in [next(iter(outputs.get(node.name, [])), "")]
        if types.get(result) == onnx.TensorProto.FLOAT and not (result in ends and result not in casts)
    )
