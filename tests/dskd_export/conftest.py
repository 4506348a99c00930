"""A small real ONNX classifier, its spec and golden images."""

from __future__ import annotations

from collections.abc import Callable

import bundle_support
import numpy as np
import pytest

from dskd_export.bundle.golden import Golden
from dskd_export.spec import ModelSpec


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., ModelSpec]:
    """A valid spec, with other values for the fields that are named."""
    return bundle_support.make_spec


@pytest.fixture(scope="session")
def make_golden() -> Callable[..., Golden]:
    """Random golden images that fit the spec."""
    return bundle_support.make_golden


@pytest.fixture
def spec() -> ModelSpec:
    return bundle_support.make_spec()


@pytest.fixture
def golden() -> Golden:
    return bundle_support.make_golden()


@pytest.fixture(scope="session")
def head() -> tuple[np.ndarray, np.ndarray]:
    """Weights [3, K] and biases [K] of the classifier below."""
    return bundle_support.make_head()


@pytest.fixture(scope="session")
def make_onnx() -> Callable[..., bytes]:
    """Serialised ONNX: mean over the pixels, then a linear head; any batch."""

    def make(metadata: dict[str, str] | None = None, output_name: str = "logits") -> bytes:
        return bundle_support.make_model(metadata, output_name).SerializeToString(deterministic=True)

    return make


@pytest.fixture(scope="session")
def onnx_bytes(make_onnx: Callable[..., bytes]) -> bytes:
    return make_onnx()
