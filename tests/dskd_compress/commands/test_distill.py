from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_support import Finished, small_recipe

from dskd_compress.cli import main
from dskd_compress.recipe import dump_recipe
from dskd_compress.stages.plan import Plan
from dskd_export.documents.base import read_document
from dskd_export.documents.training import TrainingDocument

pytestmark = pytest.mark.usefixtures("no_document_yet")


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(small_recipe()), encoding="utf-8")
    return str(path)


def plan_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> Plan:
    assert main(["distill", *arguments, "--dry-run", "--json"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert "Plan (nothing is trained or written)" in err
    return Plan.model_validate_json(out)


def test_the_plan_is_one_document_and_writes_nothing(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of([file, "--out", str(tmp_path / "run")], capsys)
    assert (plan.recipe, plan.method, plan.steps) == ("small", "dskd (default preset)", 22)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_flags_reach_the_recipe_and_set_wins(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--epochs", "5", "--batch-size", "16", "--method", "kd", "--student", "test_resnet", "--seed", "3"]
    plan = plan_of([file, *flags, "--input-size", "48", "--device", "cpu"], capsys)
    assert (plan.steps, plan.steps_per_epoch, plan.method, plan.device) == (5 * 22, 22, "kd", "cpu")
    assert (plan.student.name, plan.student.input_size) == ("test_resnet", (3, 48, 48))
    plan = plan_of([file, *flags, "--set", "train.epochs=2", "--set", "method.name=none"], capsys)
    assert (plan.steps, plan.method) == (2 * 22, "none")


def test_without_a_recipe(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = str(finished.folder / "teacher.safetensors")
    models = ["--teacher", "test_resnet", "--teacher-checkpoint", weights, "--student", "test_efficientnet"]
    plan = plan_of([*models, "--data", "digits", "--input-size", "32"], capsys)
    assert plan.recipe == "test_resnet-to-test_efficientnet"
    assert plan.teacher is not None
    assert plan.teacher.weights == "checkpoint teacher.safetensors"
    assert plan.stages[0] == "distill"
    assert plan.writes["weights"] == "runs/test_resnet-to-test_efficientnet/student.safetensors"


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        ([], "--teacher, --student, --data"),
        (["--teacher", "resnet18"], "--student, --data"),
        (["--epochs", "3", "--student", "resnet18", "--data", "digits"], "--teacher"),
    ],
)
def test_neither_a_recipe_nor_the_flags(
    arguments: list[str], missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["distill", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error: Without a recipe, {missing} must be given.\nhint: ")


def test_it_distils(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished.copy(tmp_path / "run")
    arguments = ["distill", str(folder.path), "--epochs", "1", "--method", "kd", "--seed", "4"]
    assert main([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    document = TrainingDocument.model_validate_json(out)
    assert document == read_document(folder / "distill.json", TrainingDocument)
    assert (document.method, document.epochs, document.provenance.seed) == ("kd", 1, 4)
    assert f"Next: dskd-compress export {folder.path}" in err
    assert folder.read_recipe().train.epochs == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "no/such/folder"], 3, "does not exist"),
        (["--student", "resnet19"], 3, "has no model 'resnet19'"),
        (["--device", "tpu"], 2, "'tpu'"),
        (["--amp", "int4"], 2, "--amp int4: train.precision"),
        (["--precision", "int8"], 2, "--amp int8: train.precision"),
        (["--epochs", "0"], 2, "--epochs 0: train.epochs"),
        (["--teacher-checkpoint", "none.pth"], 3, "none.pth: no such checkpoint"),
        (["--batch-size", "1000"], 3, "fewer than one batch of 1000"),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_what_cannot_be(
    arguments: list[str],
    code: int,
    message: str,
    dry: bool,
    file: str,
    finished: Finished,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same answer with and without --dry-run, and no result is lost by it."""
    folder = finished.copy(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    line = ["distill", file, "--out", str(folder.path), *arguments, "--json", *(["--dry-run"] if dry else [])]
    assert main(line) == code
    out, _ = capsys.readouterr()
    error = json.loads(out)["error"]
    assert (error["exit_code"], message in error["message"]) == (code, True), error
    assert error["hint"]
    assert {path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()} == before
