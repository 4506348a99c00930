from __future__ import annotations

import socket
from pathlib import Path

import pytest
from run_support import QUIET, Finished, small_recipe

from dskd_compress.config import NO_TEACHER, Recipe
from dskd_compress.recipe import dump_recipe, parse_yaml, recipe_from_mapping
from dskd_compress.run_folder import RunFolder, list_stages, resolve_run
from dskd_compress.stages.pipeline import run_pipeline
from dskd_compress.stages.plan import make_plan
from dskd_compress.stages.train import run_train
from dskd_compress.teachers.presence import explain_absence
from dskd_export.documents.base import read_document
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.documents.training import TrainingDocument
from dskd_export.documents.validation import ValidationDocument
from dskd_export.errors import RecipeError, UsageError

NONE = ("method={name: none}",)
FLAGS = ["student.name=test_efficientnet", "data.source=digits"]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize(
    ("changes", "needs", "has"),
    [
        ((), True, True),
        (("teacher.train=null",), True, True),
        (NONE, False, True),
        ((*NONE, "teacher.train=null"), False, False),
        ((*NONE, "teacher.train=null", "teacher.pretrained=true"), False, False),
        ((*NONE, "teacher.train=null", "teacher.checkpoint=mine.safetensors"), False, True),
    ],
)
def test_which_recipes_need_and_have_a_teacher(changes: tuple[str, ...], needs: bool, has: bool) -> None:
    recipe = small_recipe(*changes)
    assert (recipe.needs_teacher, recipe.has_teacher) == (needs, has)


def test_a_student_without_a_teacher_goes_through_all_stages(tmp_path: Path, offline: None) -> None:
    recipe = small_recipe(*NONE, "teacher.train=null", "teacher.pretrained=true", "train.epochs=1")
    folder = RunFolder(tmp_path / "run")
    plan = make_plan(recipe, folder)
    assert (plan.teacher, plan.stages[0]) == (None, "distill")
    outcomes = list(run_pipeline(recipe, folder, QUIET))
    assert [one.stage for one in outcomes] == [stage.name for stage in list_stages(recipe)]
    trained = read_document(folder / "distill.json", TrainingDocument)
    assert (trained.teacher, trained.teacher_accuracy) == (None, None)
    student = read_document(folder / "validation.json", ValidationDocument).student
    assert student is not None
    by_teacher, by_commonest = student.checks
    assert (by_teacher.verdict, by_teacher.detail) == ("NOT JUDGED", explain_absence(recipe, folder))
    assert by_commonest.verdict != "NOT JUDGED"
    rows = read_document(folder / "benchmark.json", BenchmarkDocument).rows
    assert {row.model for row in rows} == {"student"}
    assert not (folder / "teacher.fp32.onnx").exists()
    assert not any(one.ran for one in run_pipeline(recipe, folder, QUIET))


def test_a_teacher_that_is_there_is_compared_with(finished: Finished, tmp_path: Path) -> None:
    recipe = small_recipe(*NONE)
    assert explain_absence(recipe, RunFolder(tmp_path / "new")) is not None
    assert explain_absence(recipe, finished.with_teacher(tmp_path / "trained")) is None
    assert explain_absence(small_recipe(), RunFolder(tmp_path / "new")) is None


def test_no_teacher_needs_to_be_named(tmp_path: Path) -> None:
    recipe, folder = resolve_run(None, None, [*FLAGS, 'method.name="none"'])
    assert (recipe.teacher.name, recipe.name, folder.path.name) == (NO_TEACHER, "test_efficientnet", recipe.name)
    assert recipe_from_mapping(parse_yaml(dump_recipe(recipe), "text").value) == recipe
    assert Recipe.model_validate({"student": {"name": "a"}, "method": {"name": "none"}}).teacher.name == NO_TEACHER
    with pytest.raises(UsageError, match="--teacher "):
        resolve_run(None, None, FLAGS)
    with pytest.raises(RecipeError, match=r"teacher.name: is required"):
        resolve_run(None, None, [*FLAGS, "method.name=none", "teacher.checkpoint=a.safetensors"])


@pytest.mark.parametrize(
    "change", ["method.name=kd", "teacher.checkpoint=a.safetensors", "teacher.train.epochs=1"]
)
def test_a_teacher_that_is_needed_has_to_be_named(change: str) -> None:
    with pytest.raises(RecipeError, match=r"teacher\.name"):
        resolve_run(None, None, [*FLAGS, "method.name=none", "teacher.name=none", change])


def test_train_says_that_there_is_none(tmp_path: Path) -> None:
    recipe, _ = resolve_run(None, None, [*FLAGS, "method.name=none"])
    with pytest.raises(RecipeError):
        run_train(recipe, RunFolder(tmp_path / "run"), QUIET)
