"""Any change of what an output depends on is another folder; nothing else is."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from support import make_format, make_model
from torch import nn

from dskd_compress.config import DskdMethod, KdMethod, TeacherCacheSection
from dskd_compress.methods import Pair, create_task
from dskd_compress.methods.base import Teacher
from dskd_compress.models import state_sha256
from dskd_compress.teachers.cache import key as module
from dskd_compress.teachers.cache.key import CachedOutput, ImageFacts, describe_outputs

CPU = torch.device("cpu")
IMAGES = ImageFacts("data", "augmentation", dataclasses.asdict(make_format(64)), 12, 2)


def outputs_of(
    *,
    tap: str | None = "vector",
    change: Callable[[nn.Module], None] | None = None,
    teacher_mean: float = 0.5,
    images: ImageFacts = IMAGES,
    features: str = "float16",
    precision: str = "fp32",
    device: str = "cpu",
    name: str = "test_resnet",
) -> dict[str, CachedOutput]:
    size = images.preprocessing["input_size"][1]
    model = make_model(name, seed=1)
    if change is not None:
        change(model)
    pair = Pair(make_model("test_efficientnet"), make_format(size), model, make_format(size, mean=teacher_mean))
    method = KdMethod() if tap is None else DskdMethod.model_validate({"tap": tap})
    teacher = create_task(method, pair.student, pair, label_smoothing=0.0, seed=0, device=CPU).teacher
    assert isinstance(teacher, Teacher)
    found = describe_outputs(
        teacher,
        teacher_sha256=state_sha256(model),
        images=images,
        section=TeacherCacheSection.model_validate({"features": features}),
        precision=precision,
        device=torch.device(device),
    )
    return {output.name: output for output in found}


def keys_of(**changes: Any) -> dict[str, str]:
    return {name: output.key for name, output in outputs_of(**changes).items()}


def last_bit_of_a_weight(model: nn.Module) -> None:
    parameter = next(model.parameters()).detach()
    parameter.view(torch.int32).view(-1)[0] += 1


def a_buffer(model: nn.Module) -> None:
    next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d)).running_mean.add_(1e-3)


def another_activation(model: nn.Module) -> None:
    """The same weights in another function."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, nn.SiLU())


def image_facts(**changes: Any) -> ImageFacts:
    return dataclasses.replace(IMAGES, **changes)


CHANGES: dict[str, Mapping[str, Any]] = {
    "the last bit of a weight": {"change": last_bit_of_a_weight},
    "a buffer": {"change": a_buffer},
    "the structure": {"change": another_activation},
    "the teacher's normalisation": {"teacher_mean": 0.4},
    "the images": {"images": image_facts(data_sha256="other")},
    "the augmentation": {"images": image_facts(augmentation_sha256="other")},
    "the number of images": {"images": image_facts(images=13)},
    "the number of views": {"images": image_facts(views=3)},
    "the input size": {"images": image_facts(preprocessing=dataclasses.asdict(make_format(96)))},
    "the student's preprocessing": {"images": image_facts(preprocessing=dataclasses.asdict(make_format(64, 0.3)))},
    "the precision": {"precision": "bf16"},
    "the kind of device": {"device": "cuda"},
}


@pytest.mark.parametrize("what", CHANGES)
def test_any_change_is_another_key(what: str) -> None:
    before, after = keys_of(), keys_of(**CHANGES[what])
    assert before.keys() == after.keys() == {"logits_BK", "feat"}
    assert not set(before.values()) & set(after.values())


def test_the_same_is_the_same_key() -> None:
    assert keys_of() == keys_of()
    assert keys_of(device="cuda:0") == keys_of(device="cuda:1")


@pytest.mark.parametrize("changes", [{"tap": "map"}, {"features": "float32"}], ids=["tap", "type"])
def test_tap_and_type_are_of_the_feature_alone(changes: dict[str, Any]) -> None:
    before, after = keys_of(), keys_of(**changes)
    assert before["feat"] != after["feat"]
    assert before["logits_BK"] == after["logits_BK"] == keys_of(tap=None)["logits_BK"]


def test_a_teacher_that_is_given_another_size() -> None:
    """A teacher of a fixed size gets its images resized, which the adapter does."""
    adapters = [
        Pair(make_model("test_resnet"), make_format(64), make_model("test_vit", img_size=size), make_format(size))
        for size in (64, 96)
    ]
    facts = [module.describe_adapter(pair.adapter()) for pair in adapters]
    assert facts[0]["size"] is None
    assert tuple(facts[1]["size"]) == (96, 96)


@pytest.mark.parametrize("package", ["torch", "torchvision", "timm", "pillow"])
def test_what_computes_is_in_the_key(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys_of()
    real = module.importlib.metadata.version
    monkeypatch.setattr(
        module.importlib.metadata, "version", lambda name: "0.0" if name == package else real(name)
    )
    assert not set(before.values()) & set(keys_of().values())


def test_the_format_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys_of()
    monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    assert not set(before.values()) & set(keys_of().values())


def test_it_says_in_words_what_it_is_made_of() -> None:
    output = outputs_of(tap="map")["feat"]
    made_of = json.loads(json.dumps(output.made_of))
    assert made_of == output.made_of  # as plain as the manifest
    assert made_of["teacher"]["name"] == "test_resnet"
    assert made_of["output"] == {
        "name": "feat",
        "dtype": "float16",
        "shape": list(output.shape),
        "tap": {"kind": "map", "channels": output.shape[0], "grid": [2, 2], "layout": "NCHW", "prefix_tokens": 0},
    }
    assert made_of["images"]["views"] == 2
    assert len(output.key) == 64


def test_bytes_of_an_image() -> None:
    outputs = outputs_of(tap="map")
    channels = outputs["feat"].shape[0]
    assert outputs["feat"].bytes_per_image == channels * 2 * 2 * 2 + 4
    assert outputs["logits_BK"].bytes_per_image == 10 * 4 + 4
    assert outputs_of(tap="map", features="float32")["feat"].bytes_per_image == channels * 2 * 2 * 4 + 4


def test_asking_does_not_change_the_teacher() -> None:
    model = make_model("test_resnet", seed=1)
    before = copy.deepcopy(model.state_dict())
    outputs_of(change=lambda other: other.load_state_dict(model.state_dict()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
