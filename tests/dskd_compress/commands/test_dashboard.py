"""The command on a run that has ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_support import STEPS, Finished

from dskd_compress.cli import main


@pytest.mark.usefixtures("no_document_yet")
def test_a_document(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", str(finished.folder.path), "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out.splitlines()[-1])
    assert document["stage"] == "distill"
    assert (document["ended"], document["state"], document["resume"]) == (True, "ended", None)
    assert document["step"] == document["steps"] == STEPS
    assert document["epochs_done"] == document["epochs"] == finished.recipe.train.epochs
    assert document["seconds_left"] is None
    assert 0 <= document["last_validation"]["top1"] <= 1
    assert "ended" in captured.err


def test_the_teachers_training(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", str(finished.folder.path), "--stage", "train"]) == 0
    out = capsys.readouterr().out
    assert f"{finished.folder.path} · train · " in out
    assert "validation top-1" in out


def test_a_stage_that_trains_nothing(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", str(finished.folder.path), "--stage", "export"]) == 2
    assert "--stage export is no training" in capsys.readouterr().err


@pytest.mark.usefixtures("no_document_yet")
def test_a_training_whose_process_is_gone(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished.copy(tmp_path / "a run")
    (run / "distill.json").unlink()
    lines = (run / "train.jsonl").read_text().splitlines(keepends=True)
    (run / "train.jsonl").write_text("".join(lines[:4]))
    step = json.loads(lines[3])["step"]
    said = f"Stopped at step {step} of {STEPS}. Resume with: dskd-compress distill '{run.path}'\n"
    assert main(["dashboard", str(run.path)]) == 0
    assert capsys.readouterr().out.endswith(said)
    assert main(["dashboard", str(run.path), "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert (document["state"], document["ended"], document["step"], document["steps"]) == (
        "stopped",
        False,
        step,
        STEPS,
    )
    assert document["seconds_left"] is None
    assert document["resume"] == f"dskd-compress distill '{run.path}'"
    assert captured.err.endswith(said)
