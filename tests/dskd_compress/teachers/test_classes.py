"""Teachers of other classes through the recipe: mapped, or with a classifier that is fitted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from run_support import small_recipe
from safetensors.torch import load_file, save_file
from support import make_model

from dskd_compress.config import Recipe
from dskd_compress.data import open_data
from dskd_compress.recipe import dump_recipe, load_recipe
from dskd_compress.run_folder import DISTILL, RunFolder
from dskd_compress.stages.plan import make_plan
from dskd_compress.teachers.classes import read_class_map
from dskd_compress.teachers.load import load_own_teacher, load_teacher
from dskd_compress.timm_import import import_timm
from dskd_export.errors import DataError, RecipeError

SIXTEEN = "0-1: 0\n2: 2\n'3': 3\n4-5: 4\n6: 6\n7: 7\n8: 8\n9: 9\n10: 1\n11-15: 5\n"


@pytest.fixture
def sixteen(tmp_path: Path) -> Path:
    """Weights of a teacher of sixteen classes."""
    torch.manual_seed(3)
    path = tmp_path / "sixteen.safetensors"
    save_file(import_timm().create_model("test_resnet", num_classes=16).state_dict(), path)
    return path


def _recipe(checkpoint: Path, *more: str) -> Recipe:
    return small_recipe(f"teacher.checkpoint={checkpoint}", "teacher.train=null", "train.epochs=1", *more)


def test_a_mapped_teacher_adds_up_its_classes(sixteen: Path, tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(SIXTEEN, encoding="utf-8")
    recipe = _recipe(sixteen, f"teacher.class_map={path}")
    sets = open_data(recipe.data, 0)
    teacher = load_teacher(recipe, RunFolder(tmp_path / "run"), sets)
    assert teacher.weights == "checkpoint sixteen.safetensors, 16 of 16 classes mapped"
    own = import_timm().create_model("test_resnet", num_classes=16).eval()
    own.load_state_dict(load_file(sixteen))
    images_BCHW = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        p = own(images_BCHW).softmax(dim=1)
        mapped = teacher.model(images_BCHW).softmax(dim=1)
    torch.testing.assert_close(mapped[:, 0], p[:, 0] + p[:, 1])
    torch.testing.assert_close(mapped[:, 5], p[:, 11:].sum(dim=1))
    torch.testing.assert_close(mapped[:, 1], p[:, 10])


def test_the_map_in_the_recipe_and_in_a_file_are_one(sixteen: Path, tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(SIXTEEN, encoding="utf-8")
    inline = json.dumps(read_class_map(path))
    assert _recipe(sixteen, f"teacher.class_map={inline}").teacher.class_map == read_class_map(path)


def test_a_recipe_with_a_map_is_written_and_read_again(sixteen: Path, tmp_path: Path) -> None:
    recipe = _recipe(sixteen, 'teacher.class_map={"0": zero, "1-3": "1", "yes": 2}')
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    again = load_recipe(str(tmp_path / "recipe.yaml"))
    assert again.teacher.class_map == {"0": "zero", "1-3": "1", "yes": 2}
    assert again == recipe


def test_a_changed_map_is_noticed(sixteen: Path, tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    digests = []
    for text in (SIXTEEN, SIXTEEN.replace("10: 1", "10: 1 # the same")):
        path.write_text(text, encoding="utf-8")
        recipe = _recipe(sixteen, f"teacher.class_map={path}")
        digests.append(RunFolder(tmp_path).settings_digest(DISTILL, recipe, {}))
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "teacher.class_map"),
        ("0: [1]\n", "'0'"),
        ("0: 1\n0: 2\n", "map.yaml"),
        ("0: !!python/name:os.system 1\n", "map.yaml"),
    ],
)
def test_a_file_that_is_no_map(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        read_class_map(path)


def test_a_map_that_is_not_there(sixteen: Path, tmp_path: Path) -> None:
    recipe = _recipe(sixteen, f"teacher.class_map={tmp_path / 'none.yaml'}")
    with pytest.raises(RecipeError, match=r"teacher\.class_map: .*none\.yaml"):
        load_teacher(recipe, RunFolder(tmp_path), open_data(recipe.data, 0))


def test_names_that_nobody_knows(sixteen: Path, tmp_path: Path) -> None:
    recipe = _recipe(sixteen, "teacher.class_map=by_name")
    with pytest.raises(RecipeError, match=r"by_name.*teacher\.class_names"):
        load_teacher(recipe, RunFolder(tmp_path), open_data(recipe.data, 0))


def test_classes_of_the_same_name_in_another_order(sixteen: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    order = [7, 3, 9, 1, 0, 2, 4, 5, 6, 8]
    names.write_text("\n".join([*map(str, order), *"abcdef"]), encoding="utf-8")
    recipe = _recipe(sixteen, "teacher.class_map=by_name", f"teacher.class_names={names}")
    teacher = load_teacher(recipe, RunFolder(tmp_path), open_data(recipe.data, 0)).model
    images_BCHW = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        own_BJ, mapped_BK = teacher.model(images_BCHW), teacher(images_BCHW)  # type: ignore[operator]
    for position, name in enumerate(order):
        torch.testing.assert_close(mapped_BK[:, name], own_BJ[:, position])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("teacher.probe=true",), "train and probe"),
        (("teacher.class_map=by_name",), "train and class_map"),
        (("teacher.train=null", "teacher.class_names=imagenet-1k"), "class_map"),
    ],
)
def test_one_way_to_the_classes(settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        small_recipe(*settings)


def test_the_plan_of_both_ways(sixteen: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "planned")
    plan = make_plan(_recipe(sixteen, "teacher.probe=true", "method.tap=vector"), folder)
    assert plan.teacher is not None
    assert plan.teacher.weights.endswith("classifier to be fitted by this run")
    assert plan.taps["teacher"].channels == 96
    mapping = json.dumps({str(index): index for index in range(10)})
    plan = make_plan(_recipe(sixteen, f"teacher.class_map={mapping}"), folder)
    assert plan.teacher is not None
    assert plan.teacher.weights.endswith("10 of 16 classes mapped")
    assert not folder.path.exists()


def test_a_teacher_without_a_classifier(tmp_path: Path) -> None:
    """Its features are enough for a fitted one; without it the refusal names the cure."""
    model = make_model("test_resnet")
    model.reset_classifier(0)  # type: ignore[operator]
    path = tmp_path / "encoder.safetensors"
    save_file(model.state_dict(), path)
    recipe = _recipe(path, "teacher.kwargs.num_classes=0", "teacher.probe=true")
    sets = open_data(recipe.data, 0)
    assert load_own_teacher(recipe, RunFolder(tmp_path), sets).model.num_classes == 0
    with pytest.raises(DataError, match=r"(?s)no classifier.*teacher\.fit=probe"):
        load_teacher(_recipe(path, "teacher.kwargs.num_classes=0"), RunFolder(tmp_path), sets)
