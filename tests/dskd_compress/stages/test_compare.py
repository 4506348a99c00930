"""Comparisons, with real trainings in separate processes."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pytest
from run_support import QUIET, Finished, small_recipe

from dskd_compress.comparison import check_fair
from dskd_compress.config import DskdMethod, Recipe
from dskd_compress.run_folder import RunFolder
from dskd_compress.stages.compare import Run, Variant, _train_missing, parse_variants, plan_runs, run_comparison
from dskd_export import codes
from dskd_export.documents.base import read_document
from dskd_export.documents.training import ComparisonDocument, TrainingDocument
from dskd_export.errors import DskdError, EnvironmentProblem, RecipeError, UsageError

pytestmark = pytest.mark.usefixtures("forked_comparison")


def loader(teacher: Path) -> object:
    ready = [f"teacher.checkpoint={teacher}", "teacher.train=null", "train.epochs=1", "data.val_fraction=0.9"]

    def load(changes: Sequence[str]) -> Recipe:
        return small_recipe(*ready, *changes)

    return load


def test_variants() -> None:
    assert Variant.parse("map=dskd tap=map train.lr=0.1") == Variant(
        "map", ("method.name=dskd", "method.tap=map", "train.lr=0.1")
    )
    assert parse_variants("kd", (), None) == [Variant("kd", ("method.name=kd",))]
    for bad in ("map", "=dskd", "map=", "map=dskd tap", "../up=dskd"):
        with pytest.raises(UsageError, match="LABEL=METHOD"):
            Variant.parse(bad)


def test_plan() -> None:
    variants = [*parse_variants("kd", (), None), Variant.parse("map=dskd tap=map")]
    runs = plan_runs(lambda changes: small_recipe(*changes), variants, [0, 5], Path("out"))
    assert [(run.label, run.seed, run.recipe.seed) for run in runs] == [
        ("kd", 0, 0),
        ("map", 0, 0),
        ("kd", 5, 5),
        ("map", 5, 5),
    ]
    assert isinstance(runs[1].recipe.method, DskdMethod)
    assert (runs[1].recipe.method.tap, str(runs[3].folder.path)) == ("map", "out/map/seed-5")
    for seeds, chosen in (([0, 0], variants), ([0], variants * 2), ([], variants), ([0], [])):
        with pytest.raises(UsageError, match=r"twice|no seed|no method"):
            plan_runs(lambda changes: small_recipe(*changes), chosen, seeds, Path("out"))
    with pytest.raises(RecipeError, match="guide_scal"):
        plan_runs(lambda c: small_recipe(*c), [Variant.parse("a=dskd guide_scal=1")], [0], Path("out"))


def test_a_comparison_is_fair_and_goes_on_where_it_stopped(finished: Finished, tmp_path: Path) -> None:
    load = loader(finished.folder / "teacher.safetensors")
    variants = parse_variants("none,kd", (), None)
    runs = plan_runs(load, variants, [0, 1], tmp_path)
    document = run_comparison(runs, tmp_path, QUIET, epoch="last", jobs=1, against="kd")
    assert [method.label for method in document.methods] == ["none", "kd"]
    assert document.commonest_class in document.data.classes
    assert document.commonest_top1 is not None
    assert 1 / 10 <= document.commonest_top1 < 0.2
    of = {(run.label, run.seed): read_document(run.folder / "distill.json", TrainingDocument) for run in runs}
    assert of["none", 0].initial_sha256 == of["kd", 0].initial_sha256 != of["none", 1].initial_sha256
    assert document.methods[1].top1 == [of["kd", seed].last.top1.value for seed in (0, 1)]
    pair = document.differences[0]
    assert pair.differences == [
        of["none", seed].last.top1.value - of["kd", seed].last.top1.value for seed in (0, 1)
    ]
    assert read_document(tmp_path / "compare.json", ComparisonDocument) == document
    page = (tmp_path / "compare.md").read_text(encoding="utf-8")
    assert "| none |" in page
    assert "kd minus it" in page

    (runs[3].folder / "student.safetensors").unlink()
    finished_at = (runs[0].folder / "distill.json").stat().st_mtime_ns
    again = run_comparison(runs, tmp_path, QUIET, epoch="last", jobs=2, against="kd")
    assert (runs[0].folder / "distill.json").stat().st_mtime_ns == finished_at
    assert again.methods[1].top1 == document.methods[1].top1


def test_the_teacher_of_the_run_is_not_trained_again(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def note(run: Run, stage: str) -> None:
        started.append(stage)

    monkeypatch.setattr("dskd_compress.stages.compare._train", note)

    def teachers(changes: Sequence[str], source: RunFolder | None, methods: str = "none,kd") -> set[Path | None]:
        started.clear()
        runs = plan_runs(
            lambda more: finished.folder.read_recipe([*changes, *more]),
            parse_variants(methods, (), None),
            [0, 1],
            tmp_path,
        )
        return {run.recipe.teacher.checkpoint for run in _train_missing(runs, tmp_path, QUIET, 1, source)}

    own = {finished.folder.path / "teacher.safetensors"}
    assert teachers((), finished.folder) == own
    assert set(started) == {"distill"}
    assert teachers(("teacher.train.epochs=1",), finished.folder) == {tmp_path / "teacher/teacher.safetensors"}
    assert "train" in started
    assert teachers((), None) == {tmp_path / "teacher/teacher.safetensors"}
    assert "train" in started
    assert teachers((), None, "none") == {None}  # nothing reads it
    assert set(started) == {"distill"}


def test_methods_with_and_without_a_teacher_are_comparable(finished: Finished) -> None:
    taught = read_document(finished.folder / "distill.json", TrainingDocument)
    alone = taught.model_copy(update={"method": "none", "teacher": None, "teacher_accuracy": None})
    check_fair({("none", 0): alone, ("dskd", 0): taught})


def test_a_run_that_fails_says_so(finished: Finished, tmp_path: Path) -> None:
    load = loader(finished.folder / "teacher.safetensors")
    runs = plan_runs(load, [Variant.parse("far=kd train.lr=1e30")], [0], tmp_path)
    with pytest.raises(DskdError, match=r"far, seed 0: .*nan") as caught:
        run_comparison(runs, tmp_path, QUIET, epoch="last", jobs=1, against="far")
    assert caught.value.exit_code == 3
    assert (tmp_path / "far" / "seed-0.log").is_file()


def test_the_code_of_a_training_that_fails_is_kept(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(command: list[str], *, stdout: IO[str], **_: object) -> subprocess.CompletedProcess[str]:
        stdout.write("Evaluating the teacher.\nerror: DSKD-E209: the GPU is full\nhint: lower train.batch_size\n")
        stdout.flush()
        return subprocess.CompletedProcess(command, EnvironmentProblem.exit_code)

    monkeypatch.setattr("dskd_compress.stages.compare.subprocess.run", end)
    runs = plan_runs(loader(finished.folder / "teacher.safetensors"), [Variant.parse("a=kd")], [0], tmp_path)
    with pytest.raises(DskdError, match="a, seed 0: the GPU is full") as caught:
        run_comparison(runs, tmp_path, QUIET, epoch="last", jobs=1, against="a")
    assert (caught.value.code, caught.value.exit_code) == (codes.GPU_MEMORY, EnvironmentProblem.exit_code)
