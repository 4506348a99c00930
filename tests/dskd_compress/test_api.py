from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from process_support import exit_codes, start_function
from readme_blocks import ROOT, blocks
from run_support import SMALL, Finished, small_recipe

import dskd_compress
from dskd_compress.recipe import dump_recipe
from dskd_compress.run_folder import RunFolder
from dskd_export.documents.base import read_document
from dskd_export.documents.export import ExportDocument
from dskd_export.documents.training import TrainingDocument
from dskd_export.errors import (
    BundleError,
    DataError,
    DskdError,
    EnvironmentProblem,
    MissingExtra,
    RecipeError,
    UsageError,
)

MODELS = {"teacher": {"name": "resnet34"}, "student": {"name": "resnet18"}}


@pytest.fixture
def run(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A finished run in the working directory, and its recipe as `mine.yaml`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished.folder.path, tmp_path / "runs/r18")
    # What the notebook's test and those of benchmark time as well is timed as little as possible.
    quick = finished.recipe.benchmark.model_copy(update={"runners": ("onnxruntime",), "batches": (1,)})
    recipe = finished.recipe.model_copy(update={"benchmark": quick})
    Path("mine.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    return RunFolder(Path("runs/r18"))


def test_the_example_page_runs(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    page = "\n".join(block.text for block in blocks(ROOT / "docs/python-api.md", "python"))
    assert all(f"dskd_compress.{name}(" in page for name in dskd_compress.__all__ if not name.startswith("_"))
    exec(compile(page, "docs/python-api.md", "exec"), {})
    out, err = capsys.readouterr()
    assert err == ""
    assert "student: top-1" in out
    assert "3 kd\nresnet34-to-resnet18\n" in out
    assert "runs/none is not a run folder" in out
    assert (run.bundle / "model.fp16.onnx").is_file()
    assert "Bolts, revision 4" in (run / "report.html").read_text(encoding="utf-8")
    # The next call on the folder means the same.
    document = dskd_compress.export(str(run.path), export={"opset": 19, "teacher": False})
    assert [one.precision for one in document.precisions] == ["fp16"]
    assert document == read_document(run / "export.json", ExportDocument)
    assert capsys.readouterr() == ("", "")


def test_a_recipe_from_keywords() -> None:
    recipe = dskd_compress.load_recipe(small_recipe(), train={"epochs": 5}, method={"tap": "map", "name": "dskd"})
    assert (recipe.train.epochs, recipe.train.lr) == (5, small_recipe().train.lr)
    assert recipe.method.tap == "map"  # type: ignore[union-attr]
    assert dskd_compress.load_recipe(small_recipe(), method={"temperature": 3, "name": "kd"}).method.name == "kd"
    mapped = dskd_compress.load_recipe(**MODELS, data={"source": Path("photos")}, tune={})  # type: ignore[arg-type]
    assert (mapped.name, mapped.data.source) == ("resnet34-to-resnet18", "photos")
    assert mapped.tune is not None


@pytest.mark.parametrize(
    ("keywords", "kind", "named"),
    [
        ({"train": {"epochs": 0}}, RecipeError, "train.epochs=0"),
        ({"train": {"epohcs": 1}}, RecipeError, "train.epohcs"),
        ({"trian": {"epochs": 1}}, RecipeError, "trian"),
        ({"train": 3}, RecipeError, "train=3"),
    ],
)
def test_a_wrong_keyword_is_named(keywords: dict[str, object], kind: type[DskdError], named: str) -> None:
    with pytest.raises(kind) as raised:
        dskd_compress.load_recipe(small_recipe(), **keywords)
    assert named in raised.value.message
    assert "--set" not in raised.value.message


def test_without_models_they_are_asked_for() -> None:
    with pytest.raises(UsageError, match="--data"):
        dskd_compress.load_recipe(**MODELS)  # type: ignore[arg-type]


def test_what_is_finished_is_not_repeated_and_nothing_is_printed(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "student.safetensors").stat().st_mtime_ns
    document = dskd_compress.distill("mine.yaml", out=run.path)
    assert document == read_document(run / "distill.json", TrainingDocument)
    assert (run / "student.safetensors").stat().st_mtime_ns == before
    assert capsys.readouterr() == ("", "")
    dskd_compress.distill(run.path, progress=True)
    assert "distill: unchanged, skipped" in capsys.readouterr().out


def test_a_student_is_trained_after_its_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    once = {"epochs": 1}
    document = dskd_compress.distill(
        small_recipe(), tmp_path / "run", train=once, teacher={"train": once}, method={"name": "kd"}
    )
    assert (document.role, document.method, document.epochs) == ("student", "kd", 1)
    assert RunFolder(tmp_path / "run").read_recipe().train.batch_size == SMALL["train"]["batch_size"]
    assert (tmp_path / "run/teacher.safetensors").is_file()
    assert capsys.readouterr() == ("", "")


def test_a_bundle_is_validated_and_timed_without_its_run(run: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "results"
    validation = dskd_compress.validate(run.bundle, out=out, budget={"int8": {"top1_drop": 0.5}})
    effort = {"batches": [1], "threads": [1], "min_seconds": 0.01, "max_warmup_seconds": 0.05}
    effort["min_iterations"] = 10
    timed = dskd_compress.benchmark(run.bundle, out=out, benchmark=effort)
    assert validation.bundle_sha256 == timed.bundle_sha256
    assert {row.batch for row in timed.rows} == {1}
    assert dskd_compress.report(out) == out / "report.html"
    with pytest.raises(UsageError, match=r"train\.epochs=1"):
        dskd_compress.validate(run.bundle, out=out, train={"epochs": 1})
    with pytest.raises(UsageError, match="images"):
        dskd_compress.validate(run.path, images="photos")


@pytest.mark.parametrize("function", ["export", "validate", "benchmark", "report", "load_recipe", "distill"])
def test_a_folder_that_is_no_run_is_an_error_of_ours(function: str, tmp_path: Path) -> None:
    with pytest.raises((DataError, BundleError)) as raised:
        getattr(dskd_compress, function)(tmp_path)
    assert raised.value.exit_code == 3
    assert str(tmp_path) in raised.value.message


def test_a_report_of_nothing() -> None:
    with pytest.raises(UsageError):
        dskd_compress.report()


def hold(folder: str, held: str, done: str) -> None:
    """Hold a run folder until a file appears."""
    import time

    with RunFolder(Path(folder)).writing(print):
        Path(held).touch()
        while not Path(done).exists():
            time.sleep(0.02)


def test_another_process_that_writes_is_named(run: RunFolder, tmp_path: Path) -> None:
    import time

    process = start_function(hold, str(run.path), str(tmp_path / "held"), str(tmp_path / "done"))
    try:
        while not (tmp_path / "held").exists():
            time.sleep(0.02)
        with pytest.raises(EnvironmentProblem, match=str(process.pid)):
            dskd_compress.export(run.path)
    finally:
        (tmp_path / "done").touch()
    assert exit_codes(process) == [0]


def test_a_missing_package_names_its_extra(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("dskd_compress.stages")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra) as raised:
        dskd_compress.distill(run.path)
    assert "dskd-compress[train]" in str(raised.value.hint)
