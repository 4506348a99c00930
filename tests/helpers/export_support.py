"""Specs and comparisons that the tests of exports share."""

from __future__ import annotations

import functools
import math
from typing import Any

import bundle_support
import numpy as np
import onnx
from support import CLASSES, make_model
from torch import nn

from dskd_export.onnx_from_torch import Exported, onnx_from_torch
from dskd_export.onnx_from_torch.pack import OnnxModel
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner
from dskd_export.spec import ModelSpec


def make_spec(size: int = 32, **changes: Any) -> ModelSpec:
    """Ten classes, a square image."""
    ten = {"height": size, "width": size, "classes": tuple(f"class {index}" for index in range(CLASSES))}
    return bundle_support.make_spec(**ten | changes)


def export(model: nn.Module, size: int = 32, **options: Any) -> Exported:
    """Export with the options of the spec and of the exporter mixed."""
    of_spec = {name: options.pop(name) for name in list(options) if name in ModelSpec.model_fields}
    return onnx_from_torch(model, make_spec(size, **of_spec), **options)


@functools.cache
def exported_once(name: str, size: int = 32) -> Exported:
    """A model as it comes, exported once for all tests that only read it."""
    return export(make_model(name).eval(), size)


def run(model: OnnxModel, images: np.ndarray) -> np.ndarray:
    """The one output of a model that is one file."""
    with OnnxRuntimeRunner(model.proto, threads=1) as runner:
        (output,) = runner.infer({"input": images}).values()
    return np.asarray(output)


def random_images(batch: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """Normal noise, float32 [B, 3, size, size]."""
    return np.random.default_rng(seed).normal(size=(batch, 3, size, size)).astype(np.float32)


def load(model: OnnxModel) -> onnx.ModelProto:
    """The protobuf, its external weights left alone."""
    return onnx.load_from_string(model.proto)


def steps(exported: Exported) -> dict[str, Any]:
    """Name of a pass -> its facts."""
    return {step.name: step for step in exported.passes}


def count_nodes(model: OnnxModel) -> int:
    """Nodes of the main graph."""
    return len(onnx.load_from_string(model.proto).graph.node)


def count_parameters(model: OnnxModel) -> int:
    """Values in the initializers of the main graph."""
    graph = onnx.load_from_string(model.proto).graph
    return sum(math.prod(initializer.dims) for initializer in graph.initializer)
