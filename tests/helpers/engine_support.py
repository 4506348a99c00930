"""A small real classifier, and a bundle whose golden logits are the model's own."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import bundle_support
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dskd_export.bundle import Bundle, BundledModel, open_bundle, write_bundle
from dskd_export.bundle.golden import Golden
from dskd_export.engine.builder import BuildTarget
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner
from dskd_export.settings import BuildSettings


def build_arguments(**given: Any) -> tuple[BuildSettings, BuildTarget]:
    """Sort keyword arguments into the two that `build_engine` takes."""
    of_target = {field.name for field in fields(BuildTarget)} & given.keys()
    settings = {name: value for name, value in given.items() if name not in of_target}
    return BuildSettings(**settings), BuildTarget(**{name: given[name] for name in of_target})


def make_classifier(seed: int = 3, operator: str = "Relu", opset: int = 20) -> onnx.ModelProto:
    """Convolution, an activation, mean, linear head; every node with a name, any batch."""
    spec = bundle_support.make_spec()
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.normal(size=(16, 3, 3, 3)).astype(np.float32),
        "head": rng.normal(size=(16, len(spec.classes))).astype(np.float32),
        "bias": rng.normal(size=len(spec.classes)).astype(np.float32),
        "axes": np.array([2, 3]),
    }
    between = ["a"] if operator == "Relu" else ["c"]
    nodes = [
        helper.make_node("Conv", ["input", "w1"], ["c"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["a"], "relu1"),
        helper.make_node("ReduceMean", [*between, "axes"], ["p"], "pool", keepdims=0),
        helper.make_node("Gemm", ["p", "head", "bias"], ["logits"], "head"),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(spec.classes)])]
    if operator != "Relu":
        nodes.append(helper.make_node(operator, ["c"], ["d"], "my_det"))
        outputs.append(helper.make_tensor_value_info("d", TensorProto.FLOAT, ["batch", 16]))
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, spec.height, spec.width])],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    helper.set_model_props(model, spec.to_metadata())
    return model


def make_bundle(folder: Path, model: onnx.ModelProto, **others: onnx.ModelProto) -> Bundle:
    """A bundle of it, with golden logits from ONNX Runtime where that can run it."""
    data = model.SerializeToString(deterministic=True)
    golden = bundle_support.make_golden(images=8)
    if not any(node.op_type == "Det" for node in model.graph.node):
        with OnnxRuntimeRunner(data, threads=1) as runner:
            logits = runner.infer({"input": golden.input})["logits"]
        golden = Golden(golden.input, np.asarray(logits, np.float32), golden.labels, golden.image_sha256)
    arguments = {**bundle_support.bundle_arguments(), "golden": golden}
    arguments["models"] = {
        "fp32": BundledModel(data, "a test"),
        **{
            name: BundledModel(other.SerializeToString(deterministic=True), "a test")
            for name, other in others.items()
        },
    }
    if "int8" not in others:
        del arguments["calibration"]
    write_bundle(folder, **arguments)
    return open_bundle(folder)
