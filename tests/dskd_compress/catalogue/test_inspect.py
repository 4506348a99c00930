from __future__ import annotations

import pytest
import torch

from dskd_compress.catalogue.inspect import inspect_architecture
from dskd_compress.timm_import import import_timm
from dskd_export.errors import ModelError, TapError


@pytest.mark.parametrize(
    ("name", "size", "layout"),
    [
        ("test_resnet", 64, "NCHW"),
        ("test_vit", None, "tokens"),
        ("test_convnext", 64, "NCHW"),
    ],
)
def test_against_the_model_itself(name: str, size: int | None, layout: str) -> None:
    found = inspect_architecture(name, size)
    model = import_timm().create_model(name).eval()
    side = size or 160
    with torch.no_grad():
        images_BCHW = torch.zeros(1, 3, side, side)
        features = model.forward_features(images_BCHW)
        vector_BC = model.forward_head(features, pre_logits=True)
    assert found.model.input_size == (3, side, side)
    assert found.model.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.model.weights == "random"
    assert found.taps["vector"].channels == vector_BC.shape[1]
    assert found.taps["vector"].grid is None
    tap = found.taps["map"]
    assert tap.layout == layout
    assert tap.grid is not None
    if layout == "NCHW":
        assert tuple(features.shape[1:]) == (tap.channels, *tap.grid)
    else:
        assert features.shape[1] == tap.grid[0] * tap.grid[1] + model.num_prefix_tokens
    assert found.heads["vector"] == "linear, closed form"
    assert found.refused == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test_resnet", "linear, closed form"),  # mean pooling and one layer
        ("test_vit2", "its own head, by autograd"),  # a norm between pooling and classifier
        ("test_vit", "no: The head of test_vit does not read its spatial map."),  # the class token alone
    ],
)
def test_how_a_teacher_reads_its_map(name: str, expected: str) -> None:
    assert inspect_architecture(name, None).heads["map"] == expected


def test_an_unknown_name_is_answered_with_its_neighbours() -> None:
    with pytest.raises(ModelError, match=r"resnet19.*resnet18"):
        inspect_architecture("resnet19", None)


def test_a_size_that_the_model_cannot_take() -> None:
    with pytest.raises((ModelError, TapError)):
        inspect_architecture("test_vit", 33)
