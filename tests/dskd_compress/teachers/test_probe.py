"""A classifier of the data's classes on a teacher's features: fitted once, read again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from run_support import QUIET, small_recipe
from safetensors.torch import save_file

from dskd_compress.config import Recipe
from dskd_compress.data import open_data
from dskd_compress.label_space import ProbedModel
from dskd_compress.run_folder import DISTILL, EXPORT, RunFolder
from dskd_compress.stages.distill import run_distill
from dskd_compress.stages.setup import create_student, make_pair
from dskd_compress.teachers.load import load_own_teacher, load_teacher
from dskd_compress.teachers.probe import ensure_probe, load_probe
from dskd_compress.timm_import import import_timm
from dskd_export.errors import CheckpointError, DataError


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


def test_runs_of_several_seeds_have_one(probed: tuple[Recipe, RunFolder], tmp_path: Path) -> None:
    """`compare` refuses runs under different teachers."""
    recipe, finished = probed
    sets, cpu = open_data(recipe.data, 0), torch.device("cpu")
    other = recipe.model_copy(update={"seed": 5})
    student, format = create_student(other, 10)
    folder = RunFolder(tmp_path)
    pair = make_pair(student, format, load_own_teacher(other, folder, sets))
    ensure_probe(other, folder, sets, pair, sets.facts().sha256, cpu, QUIET)
    one, two = (load_probe(place / "teacher_probe.safetensors")[0] for place in (finished, folder))
    assert torch.equal(one.weight, two.weight)


def test_later_stages_depend_on_it(probed: tuple[Recipe, RunFolder], tmp_path: Path) -> None:
    recipe, finished = probed
    with pytest.raises(DataError, match=r"teacher_probe\.safetensors"):
        load_teacher(recipe, RunFolder(tmp_path), open_data(recipe.data, 0))
    assert "teacher_probe.safetensors" in finished.inputs(EXPORT, recipe)
