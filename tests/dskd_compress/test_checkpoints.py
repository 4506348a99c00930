from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support import CLASSES, make_model

from dskd_compress.checkpoints import load_weights, read_weights
from dskd_compress.config import ModelSection
from dskd_compress.models import create_model, state_sha256
from dskd_export.errors import CheckpointError


def section(name: str, **more: object) -> ModelSection:
    return ModelSection.model_validate({"name": name, "pretrained": False, **more})


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
