"""A small convolutional classifier as ONNX, and images to calibrate it on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dskd_export.precision.calibration import Calibration

SIZE, CLASSES, WIDTH = 16, 10, 32


def _cnn(outlier: float = 1.0, overflow: float = 1.0) -> Any:
    """Three convolutions, the last with a residual sum, mean pooling and a linear head; opset 20.

    Args:
        outlier: factor on one channel between the first two convolutions. The second takes it back, so
            the function stays as it is, but 8 bits have to span that channel's range.
        overflow: the same for all channels between the second and the third.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(5)

    def weight(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)

    weights = {
        "w1": weight(WIDTH, 3, 3, 3),
        "w2": weight(WIDTH, WIDTH, 3, 3),
        "w3": weight(WIDTH, WIDTH, 3, 3),
        "head": weight(CLASSES, WIDTH) * 4,
        "b1": weight(WIDTH, 1)[:, 0],
        "b2": weight(WIDTH, 1)[:, 0],
        "b3": weight(WIDTH, 1)[:, 0],
        "bias": weight(CLASSES, 1)[:, 0],
    }
    weights["w1"][3] *= outlier
    weights["b1"][3] *= outlier
    weights["w2"][:, 3] /= outlier
    weights["w2"] *= overflow
    weights["b2"] *= overflow
    weights["w3"] /= overflow
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["input", "w1", "b1"], ["c1"], "conv1", **pads),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", **pads),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["c3"], "conv3", **pads),
        helper.make_node("Relu", ["c3"], ["r3"], "relu3"),
        helper.make_node("GlobalAveragePool", ["r3"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "head", "bias"], ["logits"], "head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"dskd_spec": "kept"})
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture(scope="session")
def make_cnn() -> Callable[..., Any]:
    return _cnn


@pytest.fixture(scope="session")
def cnn() -> Any:
    return _cnn()


@pytest.fixture(scope="session")
def calibration(cnn) -> Calibration:
    """Sixty-four images, labelled as the fp32 model sees them."""
    from dskd_export.precision.scoring import logits_of_model

    images = np.random.default_rng(0).normal(size=(64, 3, SIZE, SIZE)).astype(np.float32)
    labels = logits_of_model(cnn, images).argmax(axis=1)
    return Calibration(images, labels, tuple(f"{index:064x}" for index in range(64)), seed=0)


@pytest.fixture(scope="session")
def unseen() -> np.ndarray:
    """Thirty-two images that nothing was calibrated on."""
    return np.random.default_rng(1).normal(size=(32, 3, SIZE, SIZE)).astype(np.float32)


@pytest.fixture(scope="session")
def build(cnn, calibration) -> Callable[..., Any]:
    """Build a precision of the small classifier; the same settings give the model that was built first."""
    from dskd_export.precision.build import Settings, build_precision

    @functools.cache
    def make(precision: Any, **settings: Any) -> Any:
        return build_precision(cnn.SerializeToString(), precision, calibration, calibration, Settings(**settings))

    return make


@pytest.fixture(scope="session")
def half(cnn, calibration) -> Callable[..., Any]:
    """Convert the small classifier to half precision; the same arguments give the model that was made first."""
    from dskd_export.precision.half import half_precision

    @functools.cache
    def make(precision: Any, producer: Any = "auto") -> Any:
        return half_precision(cnn.SerializeToString(), precision, calibration, producer=producer)

    return make


@pytest.fixture(scope="session")
def quantized(cnn, calibration) -> Callable[..., Any]:
    """Quantize the small classifier; the same arguments give the model that was made first. Read only."""
    from dskd_export.precision.quantize import quantize

    @functools.cache
    def make(precision: Any, producer: Any, method: Any = "max") -> Any:
        return quantize(cnn, precision, calibration, producer=producer, method=method)

    return make
