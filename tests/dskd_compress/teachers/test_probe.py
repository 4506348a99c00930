"""A classifier of the data's classes on a teacher's features: chosen for the user, fitted once, read again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from run_support import QUIET, small_recipe
from safetensors.torch import save_file

from dskd_compress.config import Recipe
from dskd_compress.data import Preprocessing, open_data
from dskd_compress.label_space import ProbedModel
from dskd_compress.run_folder import DISTILL, EXPORT, RunFolder
from dskd_compress.stages.distill import run_distill
from dskd_compress.stages.setup import create_student, make_pair, open_checked_data
from dskd_compress.teachers.load import load_own_teacher, load_teacher
from dskd_compress.teachers.probe import add_probe_where_needed, ensure_probe
from dskd_compress.timm_import import import_timm
from dskd_compress.weights import WeightsInfo, save_weights
from dskd_export.errors import CheckpointError, DataError

FORMAT = {
    "input_size": (3, 32, 32),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "crop_mode": "center",
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of four classes and of ten, of none, with a prefix, and with the names of their classes."""
    folder = tmp_path_factory.mktemp("weights")
    ten = import_timm().create_model("test_resnet", num_classes=10).state_dict()
    save_file(ten, folder / "ten.safetensors")
    state = import_timm().create_model("test_resnet", num_classes=4).state_dict()
    save_file(state, folder / "four.safetensors")
    save_file({name: value for name, value in state.items() if "fc." not in name}, folder / "none.safetensors")
    save_file({f"net.{name}": value for name, value in state.items()}, folder / "net.safetensors")
    section = small_recipe().teacher
    names = ("a", "b", "c", "d")
    save_weights(folder / "ours.safetensors", state, WeightsInfo.of(section, names, Preprocessing(**FORMAT)))
    return folder


def started(*overrides: str) -> tuple[Recipe, Recipe]:
    recipe = small_recipe("teacher.train=null", *overrides)
    return recipe, add_probe_where_needed(recipe, open_checked_data(recipe), QUIET)


@pytest.mark.parametrize("name", ["four", "ours", "net"])
def test_another_number_of_classes_gets_a_probe(
    name: str, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = f"teacher.checkpoint={weights / name}.safetensors"
    _, found = started(checkpoint)
    assert found == small_recipe("teacher.train=null", checkpoint, "teacher.probe=true")
    printed = " ".join(capsys.readouterr().err.split())
    assert all(word in printed for word in ("4 classes", "10 classes", "teacher.probe", "teacher.train"))


def test_so_does_an_encoder_without_a_classifier(weights: Path) -> None:
    _, found = started(f"teacher.checkpoint={weights / 'none.safetensors'}")
    assert found.teacher.probe is not None
    assert found.teacher.kwargs == {"num_classes": 0}


def test_so_do_the_pretrained_weights_of_timm() -> None:
    recipe = small_recipe("teacher.train=null", "teacher.pretrained=true")
    assert add_probe_where_needed(recipe, open_checked_data(recipe), QUIET).teacher.probe is not None


def test_what_the_recipe_decides_stays(weights: Path) -> None:
    four = f"teacher.checkpoint={weights / 'four.safetensors'}"
    for changes in (
        ("teacher.class_map=by_name", four),
        ("teacher.probe={l2: 0.5}", four),
        ("teacher.train={epochs: 2}", four),
        (f"teacher.checkpoint={weights / 'ten.safetensors'}",),
        (f"teacher.checkpoint={weights / 'gone.safetensors'}",),
        ("teacher.pretrained=true", "teacher.kwargs={num_classes: 10}"),
    ):
        recipe, found = started(*changes)
        assert found == recipe, changes


def test_probe_is_a_switch_or_a_section() -> None:
    none = ("teacher.train=null",)
    assert small_recipe(*none, "teacher.probe=false").teacher.probe is None
    switched = small_recipe(*none, "teacher.probe=true").teacher.probe
    assert switched == small_recipe(*none, "teacher.probe={}").teacher.probe
    section = small_recipe(*none, "teacher.probe={l2: 0.1}").teacher.probe
    assert section is not None
    assert section.l2 == 0.1


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, RunFolder]:
    """A distillation under a teacher of sixteen classes with a classifier that was fitted."""
    root = tmp_path_factory.mktemp("probed")
    torch.manual_seed(3)
    path = root / "sixteen.safetensors"
    save_file(import_timm().create_model("test_resnet", num_classes=16).state_dict(), path)
    recipe = small_recipe(
        f"teacher.checkpoint={path}",
        "teacher.train=null",
        "train.epochs=1",
        "teacher.probe={images_per_class: 20}",
    )
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
    with pytest.raises(CheckpointError, match=r"teacher_probe\.safetensors"):
        load_teacher(recipe, folder, open_data(recipe.data, 0))
    ensure()  # fits it again
    assert path.read_bytes() == (finished / "teacher_probe.safetensors").read_bytes()
    other = recipe.model_copy(update={"data": recipe.data.model_copy(update={"input_size": 48})})
    ensure(other)
    assert path.read_bytes() != (finished / "teacher_probe.safetensors").read_bytes()


def test_later_stages_depend_on_it(probed: tuple[Recipe, RunFolder], tmp_path: Path) -> None:
    recipe, finished = probed
    with pytest.raises(DataError, match=r"teacher_probe\.safetensors"):
        load_teacher(recipe, RunFolder(tmp_path), open_data(recipe.data, 0))
    assert "teacher_probe.safetensors" in finished.inputs(EXPORT, recipe)
