from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_support import small_recipe

from dskd_compress.cli import main
from dskd_compress.recipe import dump_recipe
from dskd_export.documents.base import read_document
from dskd_export.documents.training import TrainingDocument

pytestmark = pytest.mark.usefixtures("no_document_yet")


def test_it_trains_the_teacher_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(small_recipe("data.val_fraction=0.9")), encoding="utf-8")
    run = tmp_path / "run"
    flags = ["--epochs", "1", "--lr", "1e-3", "--batch-size", "24"]
    assert main(["train", str(recipe), "--out", str(run), *flags, "--json"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    document = TrainingDocument.model_validate_json(out)
    assert document == read_document(run / "teacher.json", TrainingDocument)
    assert document.data.train_images is not None
    assert (document.role, document.steps) == ("teacher", document.data.train_images // 24)
    assert "Teacher test_resnet: top-1" in err
    assert {path.name for path in run.iterdir()} == {
        "checkpoint",
        "recipe.yaml",
        "stages",
        "teacher.json",
        "teacher.safetensors",
        "teacher.train.jsonl",
    }
    rates = [
        json.loads(line).get("learning_rate") for line in (run / "teacher.train.jsonl").read_text().splitlines()
    ]
    assert rates[0] == pytest.approx(1e-3)


def test_without_a_recipe_it_needs_the_models_and_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--teacher", "test_resnet"]) == 2
    assert "Without a recipe, --student, --data must be given" in capsys.readouterr().err


def test_flags_alone_train_a_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--teacher, --student and --data are enough to say that the teacher is trained; here the data is missing."""
    models = ["--teacher", "test_resnet", "--student", "test_efficientnet"]
    assert main(["train", *models, "--data", str(tmp_path / "none"), "--out", str(tmp_path / "run")]) == 3
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_a_recipe_that_trains_no_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(small_recipe("teacher.train=null")), encoding="utf-8")
    assert main(["train", str(recipe), "--out", str(tmp_path / "run")]) == 2
    assert "no teacher.train" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
