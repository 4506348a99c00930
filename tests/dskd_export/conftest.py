"""A small real ONNX classifier, its spec and golden images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest

from dskd_export.golden import Golden
from dskd_export.spec import ModelSpec

CLASSES = 7


def _spec(**changes: object) -> ModelSpec:
    fields: dict[str, object] = {
        "architecture": "resnet18",
        "height": 6,
        "width": 8,
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.25, 0.3),
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "classes": tuple(f"class {index}" for index in range(CLASSES)),
        "opset": 20,
        "student_sha256": "a" * 64,
    }
    return ModelSpec.model_validate(fields | changes)


def _golden(images: int = 4, seed: int = 0, spec: ModelSpec | None = None) -> Golden:
    spec = spec or _spec()
    rng = np.random.default_rng(seed)
    return Golden(
        input=rng.normal(size=(images, 3, spec.height, spec.width)).astype(np.float32),
        logits=rng.normal(size=(images, len(spec.classes))).astype(np.float32),
        labels=rng.integers(0, len(spec.classes), images),
        image_sha256=np.array([hashlib.sha256(bytes([index])).hexdigest() for index in range(images)]),
    )


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., ModelSpec]:
    """A valid spec, with other values for the fields that are named."""
    return _spec


@pytest.fixture(scope="session")
def make_golden() -> Callable[..., Golden]:
    """Random golden images that fit the spec."""
    return _golden


@pytest.fixture
def spec() -> ModelSpec:
    return _spec()


@pytest.fixture
def golden() -> Golden:
    return _golden()


@pytest.fixture(scope="session")
def head() -> tuple[np.ndarray, np.ndarray]:
    """Weights [3, K] and biases [K] of the classifier below."""
    rng = np.random.default_rng(3)
    return rng.normal(size=(3, CLASSES)).astype(np.float32), rng.normal(size=CLASSES).astype(np.float32)


@pytest.fixture(scope="session")
def make_onnx(head) -> Callable[..., bytes]:
    """Serialised ONNX: mean over the pixels, then a linear head; any batch."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def make(metadata: dict[str, str] | None = None, output_name: str = "logits") -> bytes:
        weight, bias = head
        graph = helper.make_graph(
            [
                helper.make_node("ReduceMean", ["input", "axes"], ["pooled"], keepdims=0),
                helper.make_node("Gemm", ["pooled", "weight", "bias"], [output_name]),
            ],
            "classifier",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 6, 8])],
            [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, ["batch", CLASSES])],
            [
                numpy_helper.from_array(np.array([2, 3]), "axes"),
                numpy_helper.from_array(weight, "weight"),
                numpy_helper.from_array(bias, "bias"),
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        helper.set_model_props(model, metadata or _spec().to_metadata())
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)

    return make


@pytest.fixture(scope="session")
def onnx_bytes(make_onnx) -> bytes:
    return make_onnx()
