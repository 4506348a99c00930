"""Free height and width, where the model has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from export_support import export, load, make_spec, run
from support import make_model

from dskd_export.errors import ModelError
from dskd_export.spec import ModelSpec


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        pytest.param("test_resnet", {}, id="resnet"),
        pytest.param("mobilenetv3_small_050", {}, id="depthwise", marks=pytest.mark.slow),
        pytest.param("test_vit", {"dynamic_img_size": True}, id="vit"),
    ],
)
def test_any_size(name: str, kwargs: dict[str, object]) -> None:
    size = 160 if "vit" in name else 64
    model = make_model(name, **kwargs).eval()
    exported = export(model, size, dynamic_size=True)
    assert exported.max_abs_relative < 1e-5
    dims = load(exported.model).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["batch", 3, "height", "width"]
    for height, width in ((size, size), (96, 224), (size + 64, 32 * 4)):
        images = np.random.default_rng(1).normal(size=(3, 3, height, width)).astype(np.float32)
        with torch.no_grad():
            expected = model(torch.from_numpy(images)).numpy()
        assert np.abs(run(exported.model, images) - expected).max() < 1e-4 * np.abs(expected).max()


def test_bytes_of_any_size_in_the_order_of_decoders() -> None:
    model = make_model("test_resnet").eval()
    exported = export(model, dynamic_size=True, input_dtype="uint8", input_layout="NHWC")
    dims = load(exported.model).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["batch", "height", "width", 3]
    spec: ModelSpec = make_spec(32)
    pixels = np.random.default_rng(1).integers(0, 256, (1, 50, 70, 3), dtype=np.uint8)
    normalised = (pixels / 255 - spec.mean) / spec.std
    with torch.no_grad():
        expected = model(torch.from_numpy(normalised.transpose(0, 3, 1, 2).astype(np.float32))).numpy()
    assert np.abs(run(exported.model, pixels) - expected).max() < 1e-5 * np.abs(expected).max()


def test_a_model_of_one_size_says_so() -> None:
    model = make_model("vit_tiny_patch16_224", img_size=32, depth=1)
    with pytest.raises(
        ModelError, match=r"export\.dynamic_size.*32x32 only: Input height \(64\) doesn't match.*dynamic_img_size"
    ):
        export(model, 32, dynamic_size=True)
