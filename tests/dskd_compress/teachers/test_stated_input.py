"""What comes with a checkpoint says how its teacher is fed; what cannot be used is named and left out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from run_support import small_recipe
from safetensors.torch import save_file
from support import make_model

from dskd_compress.config import Recipe
from dskd_compress.data import open_data
from dskd_compress.recipe import recipe_from_mapping
from dskd_compress.run_folder import RunFolder
from dskd_compress.stages.setup import create_student, make_pair
from dskd_compress.teachers.load import TeacherModel, load_teacher
from dskd_compress.timm_import import import_timm
from dskd_export.errors import DataError, RecipeError

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
STATED: dict[str, Any] = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "crop_pct": 0.8}
READY = ("teacher.train=null", "method={name: kd}")


def write_metadata(folder: Path, config: Any) -> Path:
    text = config if isinstance(config, str) else json.dumps(config)
    save_file(make_model("test_resnet").state_dict(), folder / "w.safetensors", {"pretrained_cfg": text})
    return folder / "w.safetensors"


def write_config(folder: Path, config: Any, architecture: str = "test_resnet", **more: Any) -> Path:
    """As timm saves a model for the hub."""
    from timm.models._hub import save_config_for_hf

    model = make_model("test_resnet")
    save_file(model.state_dict(), folder / "model.safetensors")
    save_config_for_hf(model, folder / "config.json", model_config=more)
    if isinstance(config, str):
        (folder / "config.json").write_text(config, encoding="utf-8")
        return folder / "model.safetensors"
    hub = json.loads((folder / "config.json").read_text())
    hub["architecture"] = architecture
    hub["pretrained_cfg"].update(config)
    (folder / "config.json").write_text(json.dumps(hub), encoding="utf-8")
    return folder / "model.safetensors"


def write_legacy_config(folder: Path, config: Any) -> Path:
    """Before timm 0.9: one level."""
    path = write_config(folder, {})
    (folder / "config.json").write_text(json.dumps({"architecture": "test_resnet", **config}), encoding="utf-8")
    return path


def write_arguments(folder: Path, config: Any) -> Path:
    """As timm's `train.py`: what was not given on its command line is None."""
    given = argparse.Namespace(model="test_resnet", img_size=None, num_classes=10, lr=0.1, **config)
    state = make_model("test_resnet").state_dict()
    torch.save({"epoch": 3, "arch": "test_resnet", "state_dict": state, "args": given}, folder / "last.pth.tar")
    return folder / "last.pth.tar"


def recipe_of(path: Path, *more: str) -> Recipe:
    return small_recipe(f"teacher.checkpoint={path}", *READY, *more)


def load(path: Path, *more: str) -> TeacherModel:
    recipe = recipe_of(path, *more)
    return load_teacher(recipe, RunFolder(path.parent), open_data(recipe.data, 0))


@pytest.mark.parametrize(
    ("write", "origin"),
    [
        (write_metadata, "pretrained_cfg in w.safetensors"),
        (write_config, "config.json next to model.safetensors"),
        (write_legacy_config, "config.json next to model.safetensors"),
        (write_arguments, "the arguments of its training"),
    ],
)
def test_what_is_stated_is_used_and_keys_win(write: Any, origin: str, tmp_path: Path) -> None:
    path = write(tmp_path, STATED)
    format = (teacher := load(path)).format
    assert (format.mean, format.std, format.interpolation, format.crop_pct) == (MEAN, STD, "bicubic", 0.8)
    assert (teacher.origin, teacher.notes) == (origin, ())
    teacher = load(path, "teacher.mean=[0, 0, 0]", "teacher.crop_pct=1", "teacher.interpolation=box")
    format = teacher.format
    assert (format.mean, format.std, format.interpolation, format.crop_pct) == ((0, 0, 0), STD, "box", 1)
    assert teacher.origin == "teacher.mean"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("{not json", "not valid JSON"),
        ("[1, 2]", ""),
        ('{"architecture": "test_resnet", "pretrained_cfg": {"mean": "grey"}}', "mean"),
        ('{"architecture": "test_resnet", "pretrained_cfg": {"std": [0, 1, 1]}}', "std"),
        ('{"architecture": "test_resnet", "pretrained_cfg": {"mean": [NaN, 1, 1]}}', ""),
        ('{"architecture": "test_resnet", "pretrained_cfg": {"interpolation": "random"}}', "interpolation"),
        ('{"architecture": "test_resnet", "pretrained_cfg": {"input_size": [3, 9000000, 9000000]}}', "input_size"),
        ('{"architecture": "resnet50"}', "it is of resnet50"),
        ('{"architectures": ["ViTForImageClassification"]}', "architecture"),
        ("[" * 100_000, "nested too deeply"),
        (f'{{"architecture": "{"x" * 9_000_000}"}}', "bytes"),
    ],
)
def test_what_cannot_be_used_is_named_and_left_out(config: str, reason: str, tmp_path: Path) -> None:
    teacher = load(write_config(tmp_path, config))
    assert teacher.origin == "timm's for test_resnet"
    (note,) = teacher.notes
    assert note.startswith("config.json next to model.safetensors is not used: ")
    assert reason in note
    assert len(note) < 500


def test_arguments_and_metadata_are_not_trusted_either(tmp_path: Path) -> None:
    for path in (write_arguments(tmp_path, {"mean": "grey"}), write_metadata(tmp_path, '{"mean": 5}')):
        teacher = load(path)
        assert teacher.origin == "timm's for test_resnet"
        assert "mean" in teacher.notes[0]


def test_the_size_of_a_teacher_is_its_own_where_it_is_set(tmp_path: Path) -> None:
    path = write_config(tmp_path, {"input_size": [3, 64, 64]})
    for more, fed, own in (((), 32, 64), (("teacher.input_size=48",), 48, 48)):
        recipe = recipe_of(path, *more)
        teacher = load_teacher(recipe, RunFolder(tmp_path), open_data(recipe.data, 0))
        student, format = create_student(recipe, 10)
        pair = make_pair(student, format, teacher)
        assert (pair.teacher_size, teacher.format.input_size) == ((3, fed, fed), (3, own, own))
        assert pair.adapter()(torch.zeros(1, 3, 32, 32)).shape == (1, 3, fed, fed)


def test_a_ready_vit_is_built_for_the_size_of_its_weights(tmp_path: Path) -> None:
    weights = make_model("test_vit", img_size=64).state_dict()
    save_file(weights, tmp_path / "vit.safetensors")
    recipe = recipe_of(tmp_path / "vit.safetensors", "teacher.name=test_vit")
    teacher = load_teacher(recipe, RunFolder(tmp_path), open_data(recipe.data, 0))
    assert (teacher.format.input_size, teacher.weights) == ((3, 64, 64), "checkpoint vit.safetensors")
    teacher = load(tmp_path / "vit.safetensors", "teacher.name=test_vit", "teacher.input_size=48")
    assert teacher.format.input_size == (3, 48, 48)
    assert "pos_embed resampled from 64 px" in teacher.weights


def test_the_same_classes_in_another_order_are_refused_with_a_command_that_works(tmp_path: Path) -> None:
    names = [str(digit) for digit in (9, *range(9))]
    path = write_config(tmp_path, {}, label_names=names)
    with pytest.raises(DataError, match="another order") as caught:
        load(path)
    override = str(caught.value.hint).partition("--set ")[2]
    teacher = load(path, override)
    images_BCHW = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        mapped, plain = teacher.model(images_BCHW), make_model("test_resnet").eval()(images_BCHW)
    torch.testing.assert_close(mapped, plain[:, [*range(1, 10), 0]])
    assert load(write_config(tmp_path, {}, label_names=sorted(names))).notes == ()
    # Other names say nothing of the order.
    assert load(write_config(tmp_path, {}, label_names=list("abcdefghij"))).notes == ()


@pytest.mark.parametrize("key", ["input_size=64", "crop_pct=0.9", "interpolation=bicubic", "std=[1, 1, 1]"])
def test_a_teacher_that_is_trained_here_has_no_input_of_its_own(key: str) -> None:
    with pytest.raises(RecipeError, match=rf"data\.{key.partition('=')[0]}"):
        small_recipe(f"teacher.{key}")


@pytest.mark.parametrize(("given", "cure"), [(96.7, "write 0.967"), (0, "fraction"), (1.5, "fraction")])
def test_a_known_accuracy_is_a_fraction(given: float, cure: str) -> None:
    models = {"teacher": {"name": "a", "accuracy": given}, "student": {"name": "b"}}
    with pytest.raises(RecipeError, match=cure):
        recipe_from_mapping(models)


def test_the_metadata_of_timm_can_be_written_by_timm(tmp_path: Path) -> None:
    """A whole `pretrained_cfg` of timm, which has many more keys."""
    config = import_timm().models.get_pretrained_cfg("test_resnet").to_dict()
    teacher = load(write_metadata(tmp_path, {**config, "mean": MEAN}))
    assert (teacher.format.mean, teacher.format.std) == (MEAN, config["std"])
