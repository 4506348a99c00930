"""What goes into the graph gives what the device would have computed before and after it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from export_support import export, make_spec, run
from PIL import Image
from support import make_model
from torch import nn

from dskd_export.onnx_from_torch import wrap_for_deployment
from dskd_export.runtime.preprocess import preprocess_batch

PHOTOS = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)) for seed in range(3)
]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return make_model("test_resnet").eval()


@pytest.mark.parametrize(
    ("input_dtype", "input_layout", "output_name"),
    list(itertools.product(["float32", "uint8"], ["NCHW", "NHWC"], ["logits", "probabilities"]))[1:],
)
def test_every_input_and_output(model: nn.Module, input_dtype: str, input_layout: str, output_name: str) -> None:
    options = {"input_dtype": input_dtype, "input_layout": input_layout, "output_name": output_name}
    spec, plain = make_spec(32, **options), make_spec(32)
    with torch.no_grad():
        expected = model(torch.from_numpy(preprocess_batch(PHOTOS, plain)))
        expected = expected.softmax(1) if output_name == "probabilities" else expected
    images = preprocess_batch(PHOTOS, spec)
    assert images.dtype == input_dtype
    assert images.shape == spec.input_shape(3)
    # Bit for bit what the device would have computed; the model's own sums may go another way.
    before = wrap_for_deployment(nn.Flatten(), spec.model_copy(update={"output_name": "logits"}))(
        torch.from_numpy(images)
    )
    np.testing.assert_array_equal(before.numpy(), preprocess_batch(PHOTOS, plain).reshape(3, -1))
    exported = export(model, **options)
    found = run(exported.model, images)
    assert np.abs(found - expected.numpy()).max() < 1e-5 * float(expected.abs().max())


def test_a_plain_input_and_output_leave_the_model_alone(model: nn.Module) -> None:
    assert wrap_for_deployment(model, make_spec(32)) is model
