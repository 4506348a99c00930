"""Checkpoints as people have them, each with the file alone: as a ready teacher, and as the start of a training.

It loads, or is refused with one sentence whose command is pasted here and works.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_support import QUIET, small_recipe
from safetensors.torch import save_file
from support import make_model
from torch import Tensor, nn

from dskd_compress.config import Recipe
from dskd_compress.data import DataSets, open_data
from dskd_compress.run_folder import RunFolder
from dskd_compress.stages.setup import create_untrained_teacher
from dskd_compress.teachers.fit import decide_fit
from dskd_compress.teachers.load import load_own_teacher
from dskd_compress.timm_import import import_timm
from dskd_export.errors import CheckpointError

State = dict[str, Tensor]

NAME, VIT, SWIN = "test_resnet", "test_vit", "swin_tiny_patch4_window7_224"
SMALL_SWIN = {"depths": [1, 1], "num_heads": [2, 2], "embed_dim": 16}


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def state_of(name: str = NAME, **kwargs: Any) -> State:
    torch.manual_seed(3)
    model: nn.Module = import_timm().create_model(name, num_classes=10, **kwargs)
    return model.state_dict()


def with_classes(classes: int) -> State:
    state = state_of()
    width = state["fc.weight"].shape[1]
    return {**state, "fc.weight": torch.ones(classes, width), "fc.bias": torch.ones(classes)}


def without_head() -> State:
    return {name: value for name, value in state_of().items() if not name.startswith("fc.")}


def of_train_py() -> dict[str, Any]:
    state = state_of()
    arguments = argparse.Namespace(model=NAME, lr=0.1, mean=None, img_size=None)
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    more = {"optimizer": optimizer, "version": 2, "metric": 91.2, "saver": {"best": None}}
    last = {name: torch.zeros_like(value) for name, value in state.items()}
    return {"epoch": 3, "arch": NAME, "state_dict": last, "state_dict_ema": state, "args": arguments, **more}


def old_swin() -> State:
    """Before timm 0.9: tables and masks that are computed now, the layers between stages one earlier."""
    old: State = {}
    for key, value in state_of(name=SWIN, img_size=64, **SMALL_SWIN).items():
        key = re.sub(r"layers\.(\d+)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", key)
        old[key.replace("head.fc.", "head.")] = value
        if key.endswith("relative_position_bias_table"):
            old[key.replace("bias_table", "index")] = torch.zeros(49, 49, dtype=torch.long)
            old[key.replace("attn.relative_position_bias_table", "attn_mask")] = torch.zeros(4, 49, 49)
    return old


LIGHTNING = {"epoch": 3, "global_step": 9, "pytorch-lightning_version": "2.4.0", "loops": {}, "callbacks": {}}

# form -> the content of the file, and what becomes of its classifier of how many classes
FORMS: dict[str, tuple[Callable[[], Any], int | None]] = {
    "ddp": (lambda: under("module.", state_of()), 10),
    "compiled": (lambda: under("_orig_mod.", state_of()), 10),
    "compiled of ddp": (lambda: under("_orig_mod.module.", state_of()), 10),
    "ddp of compiled": (lambda: under("module._orig_mod.", state_of()), 10),
    "lightning": (lambda: {"state_dict": under("model.", state_of()), **LIGHTNING}, 10),
    "tutorial": (lambda: {"model_state_dict": state_of(), "epoch": 3}, 10),
    "net": (lambda: {"net": state_of(), "acc": 91.2}, 10),
    "timm's train.py": (of_train_py, 10),
    "numpy number": (lambda: {"epoch": 240, "model": state_of(), "best_acc": np.float64(74.3)}, 10),
    "half": (lambda: {k: v.half() if v.is_floating_point() else v for k, v in state_of().items()}, 10),
    "other classes": (lambda: with_classes(4), 4),
    "ImageNet": (lambda: with_classes(1000), 1000),
    "no head": (without_head, 0),
    "whole model": (lambda: make_model(NAME, seed=3), None),
    "inside a larger model": (
        lambda: {"state_dict": {**under("student.", state_of()), "loss": torch.ones(3)}},
        None,
    ),
    "vit of another size": (lambda: state_of(name=VIT, img_size=64), 10),
    "old swin": (old_swin, 10),
    "swin of another window": (lambda: state_of(name=SWIN, img_size=64, window_size=4, **SMALL_SWIN), 10),
}


@pytest.fixture(scope="module")
def sets() -> DataSets:
    return open_data(small_recipe().data, 0)


def recipe_of(form: str, path: Path, *more: str) -> Recipe:
    name = next((model for word, model in (("vit", VIT), ("swin", SWIN)) if word in form.split()), NAME)
    kwargs = ["teacher.kwargs={depths: [1, 1], num_heads: [2, 2], embed_dim: 16}"] if name == SWIN else []
    return small_recipe(f"teacher.name={name}", f"teacher.checkpoint={path}", *kwargs, *more)


def same_body(model: nn.Module, form: str) -> bool:
    """The tensors of the file are in the model, but for a new classifier and tables of another size."""
    name = VIT if "vit" in form.split() else SWIN if "swin" in form else NAME
    kwargs = {} if name == NAME else {"img_size": 64, **(SMALL_SWIN if name == SWIN else {})}
    if form == "swin of another window":
        kwargs["window_size"] = 4
    given, own = state_of(name=name, **kwargs), model.state_dict()
    body = [key for key in own if own[key].shape == given[key].shape and not key.startswith(("fc.", "head."))]
    close = {"atol": 1e-3, "rtol": 1e-2} if form == "half" else {"atol": 0.0, "rtol": 0.0}
    assert len(body) > len(own) - 6
    return all(torch.allclose(own[key].float(), given[key].float(), **close) for key in body)


@pytest.mark.parametrize("form", FORMS)
def test_a_form_starts_with_the_file_alone(form: str, sets: DataSets, tmp_path: Path) -> None:
    make, classes = FORMS[form]
    path = tmp_path / "my weights.pth"
    torch.save(make(), path)

    if classes is None:
        with pytest.raises(CheckpointError) as caught:
            load_own_teacher(recipe_of(form, path, "teacher.train=null"), RunFolder(tmp_path), sets)
        assert len(caught.value.message.splitlines()) == 1
        (program,) = shlex.split(str(caught.value.hint).partition(": python -c ")[2])
        exec(program, {})  # pasted; in this process, as a new one would import torch first
        path, classes = tmp_path / "my weights.weights.pth", 10

    # As `run` does: a classifier is fitted where the classes differ.
    ready = decide_fit(recipe_of(form, path, "teacher.train=null"), sets, QUIET)
    assert (ready.teacher.probe is not None) is (classes != 10)
    teacher = load_own_teacher(ready, RunFolder(tmp_path), sets)
    assert same_body(teacher.model, form)
    side = teacher.format.input_size[1]
    with torch.no_grad():
        assert teacher.model(torch.zeros(1, 3, side, side)).shape[1] >= classes

    notes: list[str] = []
    start, format = create_untrained_teacher(recipe_of(form, path), 10, notes.append)
    assert same_body(start, form)
    side = format.input_size[1]
    with torch.no_grad():
        assert start.eval()(torch.zeros(1, 3, side, side)).shape == (1, 10)
    # Both Swins shrink a window that is larger than the map of a small image.
    changed = {"timm's train.py": "EMA", "vit of another size": "resampled"}
    changed |= {"swin of another window": "resampled", "old swin": "resampled"}
    if classes != 10:
        assert "new one of 10 classes" in notes[0]
    elif form in changed:
        assert changed[form] in notes[0]
    else:
        assert notes == []


def test_a_file_of_safetensors_is_read_the_same(sets: DataSets, tmp_path: Path) -> None:
    save_file(state_of(), tmp_path / "w.safetensors")
    teacher = load_own_teacher(
        recipe_of("net", tmp_path / "w.safetensors", "teacher.train=null"), RunFolder(tmp_path), sets
    )
    assert same_body(teacher.model, "net")
