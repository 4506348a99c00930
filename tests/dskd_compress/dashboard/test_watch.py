"""Following a training while it runs."""

from __future__ import annotations

import io
import shutil
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console
from run_support import Finished

from dskd_compress.dashboard.watch import find_training, watch
from dskd_compress.run_folder import RunFolder
from dskd_export.errors import DataError, UsageError


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> RunFolder:
    """With a distillation whose second half is yet to come."""
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    for name in ("recipe.yaml", "train.jsonl"):
        shutil.copy(finished.folder / name, folder / name)
    return folder


def test_it_ends_with_the_training(run: RunFolder, finished: Finished) -> None:
    lines = (run / "train.jsonl").read_text().splitlines(keepends=True)
    half = len(lines) // 2
    (run / "train.jsonl").write_text("".join(lines[:half]))

    def go_on() -> None:
        with (run / "train.jsonl").open("a") as log:
            for line in lines[half:]:
                log.write(line)
                log.flush()
        time.sleep(0.05)
        shutil.copy(finished.folder / "distill.json", run / "distill.json.new")
        (run / "distill.json.new").touch()
        (run / "distill.json.new").rename(run / "distill.json")

    training = find_training(run, finished.recipe, None)
    assert (training.stage, training.epochs, training.ended) == ("distill", finished.recipe.train.epochs, False)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    later = threading.Timer(0.3, go_on)
    later.start()
    course, ended = watch(training, "run", console, every_s=0.02, once=False)
    later.join()
    assert ended
    assert len(course.steps) == sum('"kind":"step"' in line for line in lines)
    assert "ended" in screen.getvalue()
    assert "ETA" in screen.getvalue()


def test_once_is_once(run: RunFolder, finished: Finished) -> None:
    screen = io.StringIO()
    training = find_training(run, finished.recipe, "distill")
    _, ended = watch(training, "run", Console(file=screen, width=120), every_s=60, once=True)
    assert not ended
    assert screen.getvalue().count("run\n") == 1


def test_the_newest_log_is_taken(finished: Finished) -> None:
    assert find_training(finished.folder, finished.recipe, None).stage == "distill"
    assert find_training(finished.folder, finished.recipe, "train").log.name == "teacher.train.jsonl"


def test_what_is_not_there_is_said(run: RunFolder, finished: Finished) -> None:
    with pytest.raises(DataError, match="train"):
        find_training(run, finished.recipe, "train")
    with pytest.raises(UsageError, match="--stage export"):
        find_training(run, finished.recipe, "export")
    (run / "train.jsonl").unlink()
    with pytest.raises(DataError, match="any training"):
        find_training(run, finished.recipe, None)
