"""Score a quantised model on ONNX Runtime, with bf16 emulated in fp32 rounded after every node.

ONNX Runtime's CPU provider has no bf16 convolution. Hardware that has one multiplies bf16 numbers, adds up in fp32
and rounds the sum once: the emulation differs only in the order of the sums.

Shape suffixes: N images, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_export.documents.export import ScoreFacts
from dskd_export.errors import ModelError, require
from dskd_export.precision import graph
from dskd_export.precision.calibration import Calibration
from dskd_export.runtime.batches import logits_of
from dskd_export.runtime.metrics import kl_divergence
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner


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


_BATCH = 16


def logits_of_model(model: Any, input_N: NDArray[Any], *, optimise: bool = True) -> NDArray[np.float64]:
    """Run a model on ONNX Runtime's CPU provider: [N, ...] -> logits [N, K].

    Args:
        model: an onnx.ModelProto with one input and one output.
        input_N: images, as the model reads them.
        optimise: as for `OnnxRuntimeRunner`: an unfinished model carries no precision metadata.
    """
    names = {"input_name": model.graph.input[0].name, "output_name": model.graph.output[0].name}
    with OnnxRuntimeRunner(model.SerializeToString(), optimise=optimise) as runner:
        return logits_of(runner, input_N, batch=_BATCH, **names).astype(np.float64)


def score_of(reference_NK: NDArray[Any], logits_NK: NDArray[Any], labels_N: NDArray[np.int64]) -> ScoreFacts:
    """Compare logits [N, K] with those of fp32; NaN or Inf counts as infinitely far and wrong."""
    finite_N = np.isfinite(logits_NK).all(axis=1)
    first_N = np.where(finite_N, np.nan_to_num(logits_NK).argmax(axis=1), -1)
    reference_N = reference_NK.argmax(axis=1)
    kl = float(kl_divergence(reference_NK, logits_NK).mean()) if finite_N.all() else float("inf")
    drop = float((reference_N == labels_N).mean() - (first_N == labels_N).mean())
    return ScoreFacts(kl=kl, agreement=float((first_N == reference_N).mean()), top1_drop=drop)


def reference_logits(model: Any, images: Calibration) -> NDArray[np.float64]:
    """Logits [N, K] of the fp32 model.

    Raises:
        ModelError: there is NaN or Inf among them.
    """
    reference_NK = logits_of_model(model, images.input_N)
    if not np.isfinite(reference_NK).all():
        raise ModelError("The fp32 model gives NaN or Inf.", "Check the student: dskd-compress validate")
    return reference_NK


def score_model(
    model: Any, reference_NK: NDArray[np.float64], images: Calibration, *, optimise: bool = True
) -> ScoreFacts:
    """Run a converted model and compare it with fp32.

    Args:
        model: of any precision; bf16 is emulated where ONNX Runtime has no kernel.
        reference_NK: what `reference_logits` gave for the same images.
        images: labelled, and not those that the model is judged on later.
        optimise: as for `logits_of_model`.
    """
    if holds_bf16(model):
        model = emulate_bf16(model)
    return score_of(reference_NK, logits_of_model(model, images.input_N, optimise=optimise), images.labels_N)
