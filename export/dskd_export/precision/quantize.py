"""int8 and fp8: Q/DQ pairs in the graph, symmetric, with a scale for each channel of a weight.

Between the steps a quantised model has the *pair form*: every quantised input of a node comes from
DequantizeLinear(QuantizeLinear(x)), weights included. In this form a layer is put back to floating
point by joining the pair (`keep_float`), without a new calibration. `store_weights` ends it: weights
become 8-bit numbers in the file, a quarter of the size, with their DequantizeLinear alone.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dskd_export.errors import ModelError, UsageError, require
from dskd_export.precision import graph, modelopt
from dskd_export.precision.calibration import Calibration

Producer = Literal["auto", "modelopt", "onnxruntime"]
Method = Literal["max", "entropy", "percentile"]

# Layers that multiply: the ones worth 8-bit arithmetic.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# ONNX Runtime keeps all tensors of a batch in memory while it builds their histograms.
_BATCH = 8
# Of the absolute values, where the method is `percentile`.
PERCENTILE = 99.99


def quantize(
    model: Any,
    precision: Literal["int8", "fp8"],
    calibration: Calibration,
    *,
    producer: Producer = "auto",
    method: Method = "max",
) -> tuple[Any, str]:
    """Quantise an fp32 model: calibrate it and place Q/DQ pairs as TensorRT wants them.

    Args:
        model: an onnx.ModelProto; left as it is.
        precision: `int8`, or `fp8` (E4M3), which only ModelOpt places.
        calibration: images that the ranges are measured on.
        producer: `modelopt`, `onnxruntime`, or `auto`: ModelOpt where it is installed and can.
        method: `max`, the largest value; `entropy`, least information lost (int8); `percentile`,
            99.99 % of the values (int8, ONNX Runtime only).

    Returns:
        The model in pair form, and the tool with its version.

    Raises:
        MissingExtra: a tool is not installed.
        UsageError: the tool has no such method or precision.
        ModelError: the tool failed, or found nothing that it could quantise.
    """
    chosen = producer
    if producer == "auto":
        chosen = "onnxruntime" if method == "percentile" or not modelopt.is_installed() else "modelopt"
    if precision == "fp8" and (chosen == "onnxruntime" or method != "max"):
        raise UsageError(
            "fp8 is made by ModelOpt with the largest value only.",
            "Set export.quantize.producer: modelopt and method: max (and install 'dskd-compress[quant]').",
        )
    if chosen == "modelopt" and method == "percentile":
        raise UsageError(
            "ModelOpt calibrates by max or entropy, not by percentile.",
            "Set export.quantize.producer: onnxruntime, or another method.",
        )
    if chosen == "modelopt":
        inputs = {model.graph.input[0].name: calibration.input_N}
        made = modelopt.run("quantize", model, inputs=inputs, precision=precision, method=method)
        tool = f"{modelopt.version()} {method}"
    else:
        tool = f"onnxruntime {importlib.metadata.version('onnxruntime')} {method}"
        made = _quantize_static(model, calibration.input_N, method)
    if not quantized_nodes(made):
        raise ModelError(
            f"{tool} found no layer to quantise in this model.",
            f"Leave {precision} out of export.precisions, or choose another export.quantize.producer.",
        )
    return made, tool


def _quantize_static(model: Any, input_N: NDArray[Any], method: Method) -> Any:
    """By ONNX Runtime; ranges are gathered lot by lot, as histograms of all images do not fit the memory."""
    require("onnxruntime", "onnx")
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization import calibrate

    kind = {
        "max": calibrate.CalibrationMethod.MinMax,
        "entropy": calibrate.CalibrationMethod.Entropy,
        "percentile": calibrate.CalibrationMethod.Percentile,
    }[method]
    ops = [op for op in WEIGHTED if op != "ConvTranspose"]
    with tempfile.TemporaryDirectory(prefix="dskd-quantize-") as name:
        folder = Path(name)
        onnx.save(model, folder / "model.onnx")
        calibrator = calibrate.create_calibrator(
            folder / "model.onnx",
            ops,
            augmented_model_path=str(folder / "augmented.onnx"),
            calibrate_method=kind,
            extra_options={"symmetric": True, "percentile": PERCENTILE},
        )
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            for start in range(0, len(input_N), _BATCH):
                calibrator.collect_data(_Reader(model.graph.input[0].name, input_N[start : start + _BATCH]))
            tensors = calibrator.compute_data()
        ranges = folder / "ranges.json"
        calibrate.save_tensors_data(tensors, ranges)
        quantization.quantize_static(
            folder / "model.onnx",
            folder / "made.onnx",
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=ops,
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=kind,
            calibration_cache_path=ranges,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "AddQDQPairToWeight": True,
                "QuantizeBias": False,
                # A pair on a layer's output would part it from its activation, which TensorRT fuses.
                "OpTypesToExcludeOutputQuantization": ops,
            },
        )
        return onnx.load(folder / "made.onnx")


class _Reader:
    """Calibration images one by one, as ONNX Runtime asks for them."""

    def __init__(self, name: str, input_N: NDArray[Any]) -> None:
        self._feeds: Iterator[dict[str, NDArray[Any]]] = ({name: input_N[i : i + 1]} for i in range(len(input_N)))

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._feeds, None)

    def __len__(self) -> int:
        return _BATCH


def quantized_nodes(model: Any) -> list[str]:
    """Names of the nodes that read quantised numbers, in the order of the graph."""
    made_by = graph.producers(model)
    return [
        node.name
        for node in model.graph.node
        if node.op_type != "QuantizeLinear"
        and any(name in made_by and made_by[name].op_type == "DequantizeLinear" for name in node.input)
    ]


def keep_float(model: Any, nodes: Collection[str]) -> Any:
    """Put layers back to floating point: their inputs are read from before the Q/DQ pair.

    Args:
        model: in pair form; left as it is.
        nodes: names of layers; names that are not quantised change nothing.

    Returns:
        Another model; unread pairs are removed.
    """
    other = graph.copy(model)
    made_by = graph.producers(other)
    wanted = frozenset(nodes)
    for node in other.graph.node:
        if node.name in wanted:
            for index, name in enumerate(node.input):
                node.input[index] = _before_pair(name, made_by)
    return graph.remove_dead_nodes(other)


def _before_pair(name: str, made_by: dict[str, Any]) -> str:
    last = made_by.get(name)
    if last is None or last.op_type != "DequantizeLinear":
        return name
    first = made_by.get(last.input[0])
    return first.input[0] if first is not None and first.op_type == "QuantizeLinear" else name


def store_weights(model: Any) -> Any:
    """Quantise the weights in the file: QuantizeLinear of a constant becomes a constant of 8 bits.

    Args:
        model: in pair form; left as it is.

    Returns:
        Another model, of the same function: rounding is that of QuantizeLinear, half to even.
    """
    other = graph.copy(model)
    constants = {item.name: item for item in other.graph.initializer}
    for node in list(other.graph.node):
        if node.op_type != "QuantizeLinear" or node.input[0] not in constants:
            continue
        weight, scale, zero = (constants[name] for name in node.input)
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        values = _quantize_constant(weight, scale, zero, axis)
        values.name = node.output[0]
        other.graph.initializer.append(values)
        other.graph.node.remove(node)
    return graph.remove_dead_nodes(other)


def half_rest(model: Any) -> Any:
    """What a quantised model holds in fp32, to fp16; its inputs and outputs stay fp32.

    TensorRT computes in the types that it finds: with an fp32 rest, everything between the quantised
    layers would run in fp32. Q/DQ scales become fp16 as well, which asks for an operator set of 19.

    Raises:
        MissingExtra: ModelOpt is not installed.
    """
    return modelopt.run("half_rest", model)


def _quantize_constant(weight: Any, scale: Any, zero: Any, axis: int) -> Any:
    """QuantizeLinear of a constant, as a TensorProto of the zero point's type."""
    onnx = require("onnx", "onnx")
    to_array = onnx.numpy_helper.to_array
    values, scales = to_array(weight).astype(np.float32), to_array(scale).astype(np.float32)
    if scales.ndim == 1 and scales.size > 1:
        scales = scales.reshape([-1 if index == axis else 1 for index in range(values.ndim)])
    scaled = values / scales
    if zero.data_type == onnx.TensorProto.INT8:
        return onnx.numpy_helper.from_array(np.clip(np.rint(scaled), -128, 127).astype(np.int8))
    numbers = onnx.helper.tensor_dtype_to_np_dtype(zero.data_type)
    limit = 448.0  # largest E4M3 number
    return onnx.numpy_helper.from_array(np.clip(scaled, -limit, limit).astype(numbers))
