"""Teachers of other classes through the recipe: mapped, or with a classifier that is fitted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from run_support import QUIET, small_recipe
from safetensors.torch import load_file, save_file
from support import make_model

from dskd_compress.config import Recipe
from dskd_compress.data import open_data
from dskd_compress.label_space import ProbedModel
from dskd_compress.recipe import dump_recipe, load_recipe
from dskd_compress.run_folder import DISTILL, EXPORT, RunFolder
from dskd_compress.stages.distill import run_distill
from dskd_compress.stages.plan import make_plan
from dskd_compress.stages.setup import create_student, load_own_teacher, load_teacher, make_pair
from dskd_compress.teachers.classes import read_class_map
from dskd_compress.teachers.probe import ensure_probe
from dskd_compress.timm_import import import_timm
from dskd_export.errors import CheckpointError, DataError, RecipeError

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
        ("- a\n- b\n", "holds no mapping"),
        ("0: [1]\n", "value of '0' is not the name or index"),
        ("0: 1\n0: 2\n", "is there twice"),
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
    with pytest.raises(RecipeError, match=r"none\.yaml cannot be read: No such file"):
        load_teacher(recipe, RunFolder(tmp_path), open_data(recipe.data, 0))


def test_names_that_nobody_knows(sixteen: Path, tmp_path: Path) -> None:
    recipe = _recipe(sixteen, "teacher.class_map=by_name")
    with pytest.raises(RecipeError, match=r"by_name, but the names .* are not known\. Set teacher\.class_names"):
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
        (("teacher.probe=true",), "train and probe each give"),
        (("teacher.class_map=by_name",), "train and class_map each give"),
        (("teacher.train=null", "teacher.class_names=imagenet-1k"), "set class_map as well"),
    ],
)
def test_one_way_to_the_classes(settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        small_recipe(*settings)


def test_probe_is_a_switch_or_a_section() -> None:
    none = ("teacher.train=null",)
    assert small_recipe(*none, "teacher.probe=false").teacher.probe is None
    switched = small_recipe(*none, "teacher.probe=true").teacher.probe
    assert switched == small_recipe(*none, "teacher.probe={}").teacher.probe
    section = small_recipe(*none, "teacher.probe={l2: 0.1}").teacher.probe
    assert section is not None
    assert section.l2 == 0.1


# --- a fitted classifier


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, RunFolder]:
    """A distillation under a teacher of sixteen classes with a classifier that was fitted."""
    root = tmp_path_factory.mktemp("probed")
    torch.manual_seed(3)
    path = root / "sixteen.safetensors"
    save_file(import_timm().create_model("test_resnet", num_classes=16).state_dict(), path)
    recipe = _recipe(path, "teacher.probe={images_per_class: 20}")
    folder = RunFolder(root / "run")
    run_distill(recipe, folder, QUIET)
    return recipe, folder


def test_the_fitted_classifier_guides(probed: tuple[Recipe, RunFolder]) -> None:
    recipe, folder = probed
    document = json.loads((folder / "distill.json").read_text(encoding="utf-8"))
    probe = document["teacher_probe"]
    assert (probe["images"], probe["channels"], probe["converged"]) == (200, 96, True)
    assert probe["train_accuracy"] > 0.7
    # Features of random weights: far from good, and far from the chance of one in ten.
    assert document["teacher_accuracy"]["top1"]["low"] > 0.3
    assert document["teacher"]["weights"].endswith("classifier fitted on 200 images")
    teacher = load_teacher(recipe, folder, open_data(recipe.data, 0)).model
    assert isinstance(teacher, ProbedModel)
    images_BCHW = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        own = teacher.model
        vector_BC = own.forward_head(own.forward_features(images_BCHW), pre_logits=True)  # type: ignore[operator]
        torch.testing.assert_close(teacher(images_BCHW), teacher.classifier(vector_BC))


def test_it_is_fitted_once(probed: tuple[Recipe, RunFolder], tmp_path: Path) -> None:
    recipe, finished = probed
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(finished.path, folder.path)
    path = folder / "teacher_probe.safetensors"

    def ensure(recipe: Recipe = recipe) -> None:
        sets = open_data(recipe.data, 0)
        student, format = create_student(recipe, 10)
        pair = make_pair(student, format, load_own_teacher(recipe, folder, sets))
        ensure_probe(recipe, folder, sets, pair, sets.facts().sha256, torch.device("cpu"), QUIET)

    before = path.stat().st_mtime_ns
    ensure()
    assert path.stat().st_mtime_ns == before
    assert "teacher_probe.safetensors" in json.loads((folder / "stages/distill.json").read_text())["outputs"]
    path.write_bytes(path.read_bytes()[:-4])
    assert folder.why_rerun(DISTILL, recipe) == "teacher_probe.safetensors was altered"
    with pytest.raises(CheckpointError, match="is damaged, or no teacher probe"):
        load_teacher(recipe, folder, open_data(recipe.data, 0))
    ensure()  # fits it again
    assert path.read_bytes() == (finished / "teacher_probe.safetensors").read_bytes()
    other = recipe.model_copy(update={"data": recipe.data.model_copy(update={"input_size": 48})})
    ensure(other)
    assert path.read_bytes() != (finished / "teacher_probe.safetensors").read_bytes()


def test_later_stages_depend_on_it(probed: tuple[Recipe, RunFolder], tmp_path: Path) -> None:
    recipe, finished = probed
    with pytest.raises(DataError, match=r"teacher_probe\.safetensors is missing"):
        load_teacher(recipe, RunFolder(tmp_path), open_data(recipe.data, 0))
    assert "teacher_probe.safetensors" in finished.inputs(EXPORT, recipe)


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
    with pytest.raises(DataError, match=r"(?s)The teacher has no classifier\..*teacher\.probe=true"):
        load_teacher(_recipe(path, "teacher.kwargs.num_classes=0"), RunFolder(tmp_path), sets)
