from __future__ import annotations

import pytest
import torch
from support import make_model

from dskd_compress.config import ModelSection
from dskd_compress.models import (
    TeacherInput,
    count_macs,
    count_operations,
    count_parameters,
    create_model,
    model_facts,
    state_sha256,
)
from dskd_export.errors import ModelError


def section(name: str, **more: object) -> ModelSection:
    return ModelSection.model_validate({"name": name, "pretrained": False, **more})


def test_creates_with_the_classes_of_the_data() -> None:
    model = create_model(section("test_resnet"), num_classes=7, input_size=None)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_a_fixed_size_model_is_made_for_the_size_of_the_data() -> None:
    model = create_model(section("vit_tiny_patch16_224"), num_classes=7, input_size=64)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_an_unknown_name_gets_the_closest() -> None:
    with pytest.raises(ModelError, match=r"resnet81.*resnet18"):
        create_model(section("resnet81"), num_classes=2, input_size=None)


def test_arguments_that_timm_refuses_are_shown() -> None:
    with pytest.raises(ModelError, match=r"img_size.*kwargs"):
        create_model(section("resnet10t", kwargs={"img_size": 32}), num_classes=2, input_size=None)


def test_weights_that_cannot_be_fetched_say_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("timm.create_model", fail)
    wanted = ModelSection(name="resnet10t.c3_in1k", pretrained=True)
    with pytest.raises(ModelError, match=r"--student-checkpoint FILE, or .*--set student.pretrained=false$"):
        create_model(wanted, num_classes=2, input_size=None)


def test_counts_against_known_figures() -> None:
    """ResNet-18 at 224 px: 11.69 M parameters and 1.82 G multiply-accumulates (timm's results table)."""
    model = create_model(section("resnet18"), num_classes=1000, input_size=None)
    assert count_parameters(model) == 11_689_512
    assert count_macs(model, (3, 224, 224)) == pytest.approx(1.82e9, rel=0.01)


def test_counting_leaves_the_model_alone() -> None:
    model = make_model("test_resnet").train()
    before = state_sha256(model)
    facts = model_facts(model, (3, 64, 64), "random")
    assert model.training
    assert state_sha256(model) == before
    assert facts.size_mb == pytest.approx(
        sum(v.numel() * v.element_size() for v in model.state_dict().values()) / 1e6
    )


def test_the_teacher_gets_its_own_normalisation() -> None:
    pixels = torch.rand(2, 3, 8, 8)
    of_student, of_teacher = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))

    def normalise(norm: tuple[tuple[float, ...], tuple[float, ...]]) -> torch.Tensor:
        mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in norm)
        return (pixels - mean) / std

    adapt = TeacherInput(of_student, of_teacher, None)
    torch.testing.assert_close(adapt(normalise(of_student)), normalise(of_teacher))
    same = TeacherInput(of_student, of_student, None)
    images = normalise(of_student)
    assert same(images) is images


def test_the_teacher_gets_its_own_size() -> None:
    norm = ((0.5,) * 3, (0.5,) * 3)
    assert TeacherInput(norm, norm, (12, 10))(torch.rand(1, 3, 8, 8)).shape == (1, 3, 12, 10)


def test_state_digest_sees_every_tensor() -> None:
    model = make_model("test_resnet")
    before = state_sha256(model)
    model.bn1.running_mean += 1e-3
    assert state_sha256(model) != before


@pytest.mark.parametrize("name", ["test_vit3", "pit_ti_224"])
def test_attention_that_torchs_counter_fails_on_is_counted_all_the_same(name: str) -> None:
    model = make_model(name)
    size = model.pretrained_cfg["input_size"]
    assert count_macs(model, size) > 1e6
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_attention_is_counted() -> None:
    """Against a calculation by hand: two products of N x N x C in each block."""
    name, size = "test_vit", 160
    model = make_model(name)
    blocks, channels, tokens = len(model.blocks), model.embed_dim, (size // 16) ** 2 + 1  # type: ignore[arg-type]
    assert count_operations(model, (3, size, size))["bmm"] == blocks * 2 * tokens**2 * channels  # type: ignore[operator]
