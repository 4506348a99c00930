from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from run_support import QUIET, Finished, small_recipe

from dskd_compress.cli import main
from dskd_compress.run_folder import RunFolder
from dskd_compress.stages.report import run_report
from dskd_export.documents.base import Accuracy, Interval, StageRecord, read_document
from dskd_export.errors import DataError
from dskd_export.report.load import load_run
from dskd_export.report.next_steps import list_next_steps


def text_of(path: Path) -> str:
    """The page without the escapes of Markdown."""
    return path.read_text(encoding="utf-8").replace("\\", "")


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_it_names_both_models_and_nothing_is_stale(name: str, finished: Finished) -> None:
    text = text_of(finished.folder / name)
    assert "test_resnet" in text
    assert "test_efficientnet" in text
    assert "STALE" not in text
    assert "ALTERED" not in text


def test_the_record(finished: Finished) -> None:
    record = read_document(finished.folder / "stages/report.json", StageRecord)
    assert set(record.outputs) == {"report.html", "report.md", "report.csv", "MODEL_CARD.md"}
    assert {"distill.json", "validation.json", "benchmark.json", "bundle/manifest.json"} <= set(record.inputs)


def test_a_title_of_ones_own(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    path = run_report(small_recipe("report.title='Bolts <4> & nuts'"), folder, QUIET).html
    assert path == folder / "report.html"
    assert "Bolts &lt;4&gt; &amp; nuts" in path.read_text(encoding="utf-8")
    assert "Bolts <4>" not in path.read_text(encoding="utf-8")


def test_a_result_of_other_files_shows_as_stale(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    with (folder / "bundle/manifest.json").open("a") as file:
        file.write("\n")
    run_report(finished.recipe, folder, QUIET)
    text = text_of(folder / "report.md")
    assert "STALE: the inputs of validate, benchmark" in text
    assert "ALTERED: output files of export" in text


def test_half_a_run_can_be_reported(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    for name in ("validation.json", "benchmark.json", "benchmark.samples.npz"):
        (folder / name).unlink()
    for name in ("validate", "benchmark"):
        (folder / f"stages/{name}.json").unlink()
    run_report(finished.recipe, folder, QUIET)
    assert "test_efficientnet" in text_of(folder / "report.md")


def test_a_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(str(tmp_path))):
        run_report(small_recipe(), RunFolder(tmp_path), QUIET)
    assert list(tmp_path.iterdir()) == []


def test_steps_that_train_again_work_when_pasted(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    run = load_run(folder.path)
    assert run.student is not None
    assert run.validation is not None
    assert run.student.start == "random"
    assert run.student.pretrained_exists
    by_heart = Accuracy(top1=Interval(value=0.99, low=0.95, high=1.0), images=70)
    run = replace(run, validation=run.validation.model_copy(update={"training_accuracy": by_heart}))
    steps = {step.command: step for step in list_next_steps(run, most=9) if step.kind == "training"}
    assert [step.split(" ")[-1] for step in steps] == ["student.pretrained=true", "data.augment.mixup=0.2"]
    before = (folder / "student.safetensors").read_bytes()
    program, *words = shlex.split(list(steps)[-1])
    assert program == "dskd-compress"
    assert main([*words, "--to", "distill"]) == 0
    made = tmp_path / "run-mixup"
    assert (made / "student.safetensors").read_bytes() != before
    assert (folder / "student.safetensors").read_bytes() == before
    assert not (made / "teacher.safetensors").exists(), "it was taken over, not trained again"


def test_steps_that_export_again_work_when_pasted(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    student = load_run(folder.path).student
    assert student is not None
    run = replace(load_run(folder.path), student=student.model_copy(update={"pretrained_exists": False}))
    assert run.benchmark is not None
    rows = [
        row.model_copy(update={"latency": row.latency.model_copy(update={"p50_ms": 5.0})})
        if row.part == "with_preprocessing" and row.latency is not None
        else row
        for row in run.benchmark.rows
    ]
    run = replace(run, benchmark=run.benchmark.model_copy(update={"rows": rows}))
    (step,) = (step for step in list_next_steps(run) if step.kind == "speed")
    assert main([*shlex.split(step.command)[1:], "--to", "export"]) == 0
    spec = load_run(folder.path).spec
    assert spec is not None
    assert spec.input_dtype == "uint8"
