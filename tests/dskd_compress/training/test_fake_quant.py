from __future__ import annotations

import pytest
import torch
from support import make_model
from torch import nn

from dskd_compress.training.fake_quant import insert_fake_quant, strip_quantisers
from dskd_export.errors import ModelError


def _rounded(weight: torch.Tensor) -> torch.Tensor:
    """int8 by output channel, symmetric, written out."""
    scale = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True) / 127
    return (weight / scale).round().clamp(-127, 127) * scale


def test_a_linear_layer_rounds_as_written_out() -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(8, 5))
    images = torch.randn(64, 8)
    weight, bias = layer[0].weight.detach().clone(), layer[0].bias.detach().clone()
    assert insert_fake_quant(layer, "int8", [images]) == 1
    scale = images.abs().max() / 127
    expected = ((images / scale).round() * scale) @ _rounded(weight).T + bias
    torch.testing.assert_close(layer(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_gradients_pass_and_the_plain_keys_stay(precision: str) -> None:
    model = make_model("test_resnet")
    plain = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = torch.randn(4, 3, 32, 32)
    before = model.eval()(images)
    layers = insert_fake_quant(model, precision, [images])  # type: ignore[arg-type]
    plain_layers = [m for m in make_model("test_resnet").modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert layers == len(plain_layers)
    assert 0 < (model(images) - before).abs().max() / before.abs().max() < 0.2
    model.train()(images).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    kept = strip_quantisers(model.state_dict(), list(plain))
    assert list(kept) == list(plain)
    make_model("test_resnet").load_state_dict(kept, strict=True)


def test_the_mode_stays() -> None:
    model = make_model("test_resnet").train()
    insert_fake_quant(model, "int8", [torch.randn(2, 3, 32, 32)])
    assert model.training


def test_nothing_to_quantise() -> None:
    with pytest.raises(ModelError, match="no layer"):
        insert_fake_quant(nn.Sequential(nn.Flatten()), "int8", [torch.zeros(1, 3)])


def test_a_key_that_is_gone() -> None:
    with pytest.raises(ModelError, match="has lost b"):
        strip_quantisers({"a": torch.zeros(1)}, ["a", "b"])
