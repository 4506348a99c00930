"""Checkpoints as trainers write them: loaded where that is safe, else refused with a command that works."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import CLASSES, make_model
from torch import Tensor

from dskd_compress.checkpoints import WeightsShape, count_classes, find_shape, read_weights
from dskd_compress.config import ModelSection
from dskd_compress.models import create_model, state_sha256
from dskd_compress.timm_import import import_timm
from dskd_export.errors import CheckpointError, ModelError

import_timm()

from timm.layers import resample_abs_pos_embed  # noqa: E402

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    return make_model("test_resnet", seed=3).state_dict()


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def load(path: Path, classes: int = CLASSES, notes: list[str] | None = None, name: str = "test_resnet") -> Any:
    section = ModelSection(name=name, pretrained=False, checkpoint=path)
    on_new = None if notes is None else notes.append
    return create_model(section, num_classes=classes, input_size=None, on_new_classifier=on_new)


LAYOUTS: dict[str, Any] = {
    "ddp": lambda s: under("module.", s),
    "compiled": lambda s: under("_orig_mod.", s),
    "compiled of ddp": lambda s: under("_orig_mod.module.", s),
    "ddp of compiled": lambda s: under("module._orig_mod.", s),
    "lightning": lambda s: {"state_dict": under("model.", s), "epoch": 3, "pytorch-lightning_version": "2.4.0"},
    "tutorial": lambda s: {"model_state_dict": s, "epoch": 3},
    "net": lambda s: {"net": s, "acc": 91.2},
    "any name": lambda s: {"my_weights": s, "epoch": torch.tensor(3)},
    "nested": lambda s: {"state_dict": {"model": under("backbone.", s)}},
    "timm": lambda s: {"epoch": 3, "state_dict": s, "state_dict_ema": s, "args": argparse.Namespace(lr=0.1)},
    "numpy": lambda s: {"epoch": 240, "model": s, "best_acc": np.float64(74.3), "worst": np.float32(1.0)},
    "optimizer": lambda s: {
        "model_state_dict": s,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "scheduler": {"last_epoch": 3},
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_that_load(layout: str, state: State, tmp_path: Path) -> None:
    torch.save(LAYOUTS[layout](state), tmp_path / "weights.pth")
    expected = make_model("test_resnet", seed=3)
    assert state_sha256(load(tmp_path / "weights.pth")) == state_sha256(expected)


def test_the_moving_average_is_taken_and_named(state: State, tmp_path: Path) -> None:
    """As timm's own `load_checkpoint` and `validate.py` do."""
    last = make_model("test_resnet", seed=4).state_dict()
    torch.save({"state_dict": last, "state_dict_ema": under("module.", state)}, tmp_path / "timm.pth.tar")
    section = ModelSection(name="test_resnet", pretrained=False, checkpoint=tmp_path / "timm.pth.tar")
    changes: list[str] = []
    loaded = create_model(section, num_classes=CLASSES, input_size=None, on_change=changes.append)
    assert state_sha256(loaded) == state_sha256(make_model("test_resnet", seed=3))
    assert changes == ["its EMA weights, state_dict_ema"]


def test_a_folder_names_the_file_in_it(state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path)
    assert str(caught.value.hint).endswith(str(tmp_path / "model.safetensors"))


def test_half_precision_is_cast(state: State, tmp_path: Path) -> None:
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, tmp_path / "half.pth")
    assert next(load(tmp_path / "half.pth").parameters()).dtype == torch.float32


def run_hint(error: CheckpointError) -> None:
    """Run the program in a hint; in this process, for a new one would import torch first."""
    (program,) = shlex.split(str(error.hint).partition(": python -c ")[2])
    exec(program, {})


def test_a_whole_model_is_refused_with_a_command_that_keeps_its_weights(tmp_path: Path) -> None:
    model = make_model("test_resnet", seed=3)
    torch.save(model, tmp_path / "whole model.pth")
    with pytest.raises(CheckpointError, match="could run code") as caught:
        load(tmp_path / "whole model.pth")
    run_hint(caught.value)
    assert state_sha256(load(tmp_path / "whole model.weights.pth")) == state_sha256(model)


def test_several_state_dicts_are_named_and_one_can_be_kept(state: State, tmp_path: Path) -> None:
    torch.save({"generator": state, "discriminator": state, "epoch": 3}, tmp_path / "gan.pth")
    with pytest.raises(CheckpointError, match="generator, discriminator") as caught:
        load(tmp_path / "gan.pth")
    run_hint(caught.value)
    assert load(tmp_path / "gan.weights.pth") is not None


def test_a_model_inside_a_larger_one_can_be_taken_out(state: State, tmp_path: Path) -> None:
    torch.save({"state_dict": {**under("student.", state), "loss.weight": torch.zeros(3)}}, tmp_path / "task.ckpt")
    with pytest.raises(CheckpointError, match=r"unexpected \(loss\.weight") as caught:
        load(tmp_path / "task.ckpt")
    assert "under 'student.'" in str(caught.value.hint)
    run_hint(caught.value)
    assert load(tmp_path / "task.weights.pth") is not None


@pytest.mark.parametrize("content", [{"epoch": 3, "args": {}}, {}])
def test_a_file_without_weights_lists_its_keys(content: dict[str, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match=f"keys are {', '.join(content) or 'none'}"):
        read_weights(tmp_path / "none.pth")


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"state_dict": 5}, {1: torch.zeros(2)}, "text", None])
def test_no_content_is_our_bug(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "odd.pth")
    assert "object" not in caught.value.message


# --- other versions and sizes


def test_old_tables_of_swin(tmp_path: Path) -> None:
    """Before timm 0.9: buffers that are computed now, and the layers between stages one earlier."""
    import re

    name = "swin_tiny_patch4_window7_224"
    kwargs = {"depths": (1, 1), "num_heads": (2, 2), "embed_dim": 16}
    model = make_model(name, **kwargs)
    old: State = {}
    for key, value in model.state_dict().items():
        key = re.sub(r"layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key)
        old[key.replace("head.fc.", "head.")] = value
        if key.endswith("relative_position_bias_table"):
            old[key.replace("bias_table", "index")] = torch.zeros(49, 49, dtype=torch.long)
    save_file(old, tmp_path / "old.safetensors")
    section = ModelSection(name=name, pretrained=False, checkpoint=tmp_path / "old.safetensors", kwargs=kwargs)
    loaded = create_model(section, num_classes=CLASSES, input_size=None)
    assert state_sha256(loaded) == state_sha256(model)
    assert count_classes(name, tmp_path / "old.safetensors") == CLASSES


def test_a_vit_of_another_image_size_loads_and_says_so(tmp_path: Path) -> None:
    trained = make_model("test_vit", img_size=64)
    save_file(trained.state_dict(), tmp_path / "vit.safetensors")
    section = ModelSection(name="test_vit", pretrained=False, checkpoint=tmp_path / "vit.safetensors")
    assert find_shape(section, read_weights(tmp_path / "vit.safetensors")) == WeightsShape(CLASSES, 64)
    changes: list[str] = []
    loaded = create_model(section, num_classes=CLASSES, input_size=32, on_change=changes.append)
    assert changes == ["pos_embed resampled from 64 px to the images' size"]
    own, given = loaded.state_dict(), trained.state_dict()
    assert own["pos_embed"].shape == (1, 5, 64)
    expected = resample_abs_pos_embed(given["pos_embed"], [2, 2])
    torch.testing.assert_close(own["pos_embed"], expected)
    assert all(torch.equal(own[name], given[name]) for name in own if name != "pos_embed")
    changes.clear()
    same = create_model(section, num_classes=CLASSES, input_size=64, on_change=changes.append)
    assert (state_sha256(same), changes) == (state_sha256(trained), [])


def test_a_swin_of_another_window_loads_and_says_so(tmp_path: Path) -> None:
    kwargs = {"depths": (1, 1), "num_heads": (2, 2), "embed_dim": 16}
    name = "swin_tiny_patch4_window7_224"
    trained = make_model(name, **kwargs, img_size=112, window_size=7)
    old = {**trained.state_dict(), "layers.0.blocks.0.attn_mask": torch.zeros(4, 49, 49)}
    save_file(old, tmp_path / "swin.safetensors")
    section = ModelSection(
        name=name, pretrained=False, checkpoint=tmp_path / "swin.safetensors", kwargs={**kwargs, "window_size": 4}
    )
    changes: list[str] = []
    loaded = create_model(section, num_classes=CLASSES, input_size=64, on_change=changes.append)
    assert "relative_position_bias_table resampled" in changes[0]
    tables = [tensor for key, tensor in loaded.state_dict().items() if key.endswith("bias_table")]
    assert [table.shape[0] for table in tables] == [49, 49], "of windows of 4x4"
    assert all(bool(table.abs().sum() > 0) for table in tables)


def test_a_vit_of_other_patches_is_another_model(tmp_path: Path) -> None:
    """timm would resample its patch embedding as well, which no image size asks for."""
    save_file(make_model("test_vit", patch_size=8).state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(CheckpointError, match=r"patch_embed\.proj\.weight is \(64, 3, 8, 8\)"):
        load(tmp_path / "vit.safetensors", name="test_vit")


# --- a new classifier


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "cifar_resnet8"])
def test_a_classifier_of_other_classes_is_left_out_and_named(name: str, tmp_path: Path) -> None:
    model = make_model(name, seed=3)
    save_file(model.state_dict(), tmp_path / "ten.safetensors")
    model.reset_classifier(0)  # type: ignore[operator]
    save_file(model.state_dict(), tmp_path / "none.safetensors")
    notes: list[str] = []
    for file, note in (("ten", "classifier of 10 classes is left out"), ("none", "has no classifier")):
        torch.manual_seed(5)
        loaded = load(tmp_path / f"{file}.safetensors", 4, notes, name)
        assert note in notes[-1]
        assert "new one of 4 classes" in notes[-1]
        torch.manual_seed(5)
        fresh = create_model(ModelSection(name=name, pretrained=False), num_classes=4, input_size=None)
        body = model.state_dict()
        for key, value in loaded.state_dict().items():
            assert torch.equal(value, body.get(key, fresh.state_dict()[key])), key
        with pytest.raises(CheckpointError):  # without a callback nothing is left out
            load(tmp_path / f"{file}.safetensors", 4, None, name)
    assert len(notes) == 2
    load(tmp_path / "ten.safetensors", CLASSES, notes, name)
    assert len(notes) == 2  # it fits


def test_all_but_the_classifier_has_to_fit(state: State, tmp_path: Path) -> None:
    notes: list[str] = []
    torch.save({name: value for name, value in state.items() if name != "conv1.0.weight"}, tmp_path / "hole.pth")
    with pytest.raises(CheckpointError, match=r"1 missing \(conv1\.0\.weight\)"):
        load(tmp_path / "hole.pth", 4, notes)


def test_classes_of_a_checkpoint(state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "ten.safetensors")
    assert count_classes("test_resnet", tmp_path / "ten.safetensors") == 10
    save_file({k: v for k, v in state.items() if not k.startswith("fc.")}, tmp_path / "none.safetensors")
    assert count_classes("test_resnet", tmp_path / "none.safetensors") == 0


@pytest.mark.parametrize("name", ["resnet18.nobody", "resnet81"])
def test_a_name_that_timm_does_not_know(name: str, state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "ten.safetensors")
    assert count_classes(name, tmp_path / "ten.safetensors") is None
    with pytest.raises(ModelError):
        create_model(
            ModelSection(name=name, checkpoint=tmp_path / "ten.safetensors"), num_classes=10, input_size=32
        )
