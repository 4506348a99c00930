"""The CIFAR networks: published sizes, timm's interface, taps."""

from __future__ import annotations

import pytest
import torch

from dskd_compress.models import count_parameters
from dskd_compress.taps import find_head, find_tap, probe
from dskd_compress.timm_import import import_timm

timm = import_timm()

# Millions of parameters with 100 classes, as the papers that use these networks print them.
PUBLISHED_MILLIONS = {
    "cifar_resnet8x4": 1.23,
    "cifar_resnet32x4": 7.43,
    "cifar_resnet20": 0.28,
    "cifar_resnet32": 0.47,
    "cifar_resnet56": 0.86,
    "cifar_resnet110": 1.74,
    "cifar_wrn_16_2": 0.70,
    "cifar_wrn_40_1": 0.57,
    "cifar_wrn_40_2": 2.26,
    "cifar_vgg8": 3.97,
    "cifar_vgg13": 9.46,
}
NAMES = sorted([*PUBLISHED_MILLIONS, "cifar_resnet8", "cifar_resnet14"])


def conv(inputs: int, outputs: int, side: int, bias: bool = False) -> int:
    return inputs * outputs * side * side + (outputs if bias else 0)


def norm(channels: int) -> int:
    return 2 * channels


def expected_parameters(name: str) -> int:
    """Counted from the papers' tables, layer by layer, without the code under test."""
    kind = name.removeprefix("cifar_")
    if kind.startswith("vgg"):
        total, inputs = 0, 3
        for width in (64, 128, 256, 512, 512):
            for _ in range(1 if kind == "vgg8" else 2):
                total += conv(inputs, width, 3, bias=True) + norm(width)
                inputs = width
        return total + 512 * 100 + 100
    if kind.startswith("wrn"):
        depth, k = map(int, kind.split("_")[1:])
        total, inputs = conv(3, 16, 3), 16
        for width in (16 * k, 32 * k, 64 * k):
            for block in range((depth - 4) // 6):
                total += norm(inputs) + conv(inputs, width, 3) + norm(width) + conv(width, width, 3)
                total += conv(inputs, width, 1) if block == 0 and inputs != width else 0
                inputs = width
        return total + norm(inputs) + inputs * 100 + 100
    depth, _, wide = kind.removeprefix("resnet").partition("x")
    stem, *widths = (32, 64, 128, 256) if wide else (16, 16, 32, 64)
    total, inputs = conv(3, stem, 3) + norm(stem), stem
    for width in widths:
        for block in range((int(depth) - 2) // 6):
            total += conv(inputs, width, 3) + conv(width, width, 3) + 2 * norm(width)
            total += conv(inputs, width, 1) + norm(width) if block == 0 and inputs != width else 0
            inputs = width
    return total + inputs * 100 + 100


def test_the_list_is_complete() -> None:
    assert sorted(timm.list_models("cifar_*")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_parameter_count(name: str) -> None:
    with torch.device("meta"):
        count = count_parameters(timm.create_model(name))
    assert count == expected_parameters(name)
    if name in PUBLISHED_MILLIONS:
        assert round(count / 1e6, 2) == pytest.approx(PUBLISHED_MILLIONS[name], abs=0.0101)


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_resnet8x4", "cifar_wrn_16_2", "cifar_vgg8"])
def test_timm_interface(name: str) -> None:
    model = timm.create_model(name, num_classes=10).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features = model.forward_features(images)
        last, maps = model.forward_intermediates(images)
        assert torch.equal(last, features)
        assert [tuple(m.shape[1:2]) for m in maps] == [(info["num_chs"],) for info in model.feature_info]
        assert [32 // m.shape[2] for m in maps] == [info["reduction"] for info in model.feature_info]
        assert len(model.forward_intermediates(images, indices=1, intermediates_only=True, stop_early=True)) == 1
        assert torch.equal(model(images), model.forward_head(features))
        assert torch.equal(model.fc(model.forward_head(features, pre_logits=True)), model(images))
    assert features.shape[1] == model.head_hidden_size == model.num_features
    model.reset_classifier(7)
    assert model(images).shape == (2, 7)
    model.reset_classifier(0)
    assert model(images).shape == (2, model.num_features)


@pytest.mark.parametrize("name", ["cifar_resnet8x4", "cifar_wrn_16_2", "cifar_vgg8"])
def test_taps(name: str) -> None:
    model = timm.create_model(name, num_classes=10).eval()
    seen = probe(model, (3, 32, 32))
    for kind in ("vector", "map"):
        tap = find_tap(model, seen, kind)
        assert tap.channels == model.num_features
        assert find_head(model, seen, tap).linear is model.fc


def test_checkpointing_gives_the_same_gradients() -> None:
    torch.manual_seed(0)
    model = timm.create_model("cifar_resnet14", num_classes=10).train()
    images = torch.randn(4, 3, 32, 32)
    gradients = []
    for checkpointing in (False, True):
        model.set_grad_checkpointing(checkpointing)
        model.zero_grad()
        model(images).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1])


def test_depth_must_fit() -> None:
    from dskd_compress.cifar_nets.resnet import CifarResNet
    from dskd_compress.cifar_nets.wide_resnet import WideResNet

    with pytest.raises(ValueError, match="6n"):
        CifarResNet(9, (16, 16, 32, 64))
    with pytest.raises(ValueError, match="6n"):
        WideResNet(17, 2)
