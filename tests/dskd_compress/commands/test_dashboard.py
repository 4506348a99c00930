"""The command on a run that has ended."""

from __future__ import annotations

import json

import pytest
from run_support import Finished

from dskd_compress.cli import main


@pytest.mark.usefixtures("no_document_yet")
def test_a_document(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", str(finished.folder.path), "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out.splitlines()[-1])
    assert document["stage"] == "distill"
    assert document["ended"] is True
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
