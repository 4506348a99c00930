from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support import CLASSES, make_model

from dskd_compress.checkpoints import load_weights, read_weights
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
from dskd_export.errors import CheckpointError, ModelError


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


@pytest.mark.parametrize("layout", ["safetensors", "bare", "state_dict", "state_dict_ema", "model", "module."])
def test_every_layout_of_a_checkpoint(layout: str, tmp_path: Path) -> None:
    model = make_model("test_resnet", seed=3)
    state, other = model.state_dict(), make_model("test_resnet", seed=4).state_dict()
    path = tmp_path / ("weights.safetensors" if layout == "safetensors" else "weights.pth")
    if layout == "safetensors":
        save_file(state, path)
    elif layout == "bare":
        torch.save(state, path)
    elif layout == "module.":
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}, path)
    elif layout == "state_dict_ema":
        torch.save({"state_dict": other, "state_dict_ema": state}, path)
    else:
        torch.save({layout: state, "epoch": 3}, path)
    loaded = create_model(section("test_resnet", checkpoint=path), num_classes=CLASSES, input_size=None)
    assert state_sha256(loaded) == state_sha256(model)


class RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, ("/tmp/dskd-compress-should-not-exist",)


@pytest.mark.parametrize("how", ["pickle", "torch.save"])
def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(how: str, tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": RunsCode()}, protocol=2))
    else:
        torch.save({"state_dict": {"fc.weight": torch.zeros(1), "x": RunsCode()}}, path)
    with pytest.raises(CheckpointError, match="could run code"):
        read_weights(path)
    assert not Path("/tmp/dskd-compress-should-not-exist").exists()


def test_a_newer_pickle_with_code_in_it_is_not_run_either(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"state_dict": RunsCode()}, protocol=4))
    with pytest.raises(CheckpointError, match=r"evil\.pth"):
        read_weights(path)
    assert not Path("/tmp/dskd-compress-should-not-exist").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_file_says_so(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"not a checkpoint at all")
    with pytest.raises(CheckpointError, match=r"weights\.(pth|safetensors)"):
        read_weights(path)


def test_a_truncated_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(make_model("test_resnet").state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        read_weights(path)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pth|\.pth|\.safetensors"):
        read_weights(tmp_path / "none.pth")


def test_a_file_without_tensors_says_so(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"epoch": 3}, path)
    with pytest.raises(CheckpointError, match=r"no tensors.*torch\.save"):
        read_weights(path)


def test_weights_of_another_model_name_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(make_model("test_resnet").state_dict(), path)
    with pytest.raises(CheckpointError, match=r"fc\.bias is \(10,\)"):
        create_model(section("test_resnet", checkpoint=path), num_classes=CLASSES + 1, input_size=None)
    with pytest.raises(CheckpointError, match=r"\d+ missing .*\d+ unexpected"):
        load_weights(make_model("test_vit"), path)


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
