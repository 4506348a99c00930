"""Following a training while it runs."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console
from run_support import STEPS, Finished

from dskd_compress.dashboard.watch import find_training, watch
from dskd_compress.run_folder import RunFolder
from dskd_export.errors import DataError, UsageError
from dskd_export.files.folder_lock import LOCK


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
    assert (training.stage, training.epochs, training.state) == (
        "distill",
        finished.recipe.train.epochs,
        "stopped",
    )
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    later = threading.Timer(0.3, go_on)
    with run.writing(lambda _: None):
        assert training.state == "running"
        later.start()
        course, state = watch(training, "run", console, every_s=0.02, once=False)
        later.join()
    assert state == "ended"
    assert len(course.steps) == sum('"kind":"step"' in line for line in lines)
    assert "ended" in screen.getvalue()
    assert "ETA" in screen.getvalue()


def test_once_is_once(run: RunFolder, finished: Finished) -> None:
    screen = io.StringIO()
    training = find_training(run, finished.recipe, "distill")
    with run.writing(lambda _: None):
        _, state = watch(training, "run", Console(file=screen, width=120), every_s=60, once=True)
    assert state == "running"
    assert screen.getvalue().count("run\n") == 1


def test_a_training_that_is_killed_ends_the_dashboard(run: RunFolder, finished: Finished) -> None:
    training = find_training(run, finished.recipe, "distill")
    held, writer = hold_in_process(run)
    screen = io.StringIO()
    kill = threading.Timer(0.3, writer.kill)
    kill.start()
    course, state = watch(
        training, "run", Console(file=screen, force_terminal=True, width=120), every_s=0.02, once=False
    )
    kill.join()
    writer.wait()
    assert held.is_file()  # it did not get to remove its lock
    assert (state, course.step, course.total_steps) == ("stopped", STEPS, STEPS)
    assert "ETA" in screen.getvalue()
    assert f"stopped at step {STEPS} of {STEPS}" in screen.getvalue()


def test_a_process_that_trains_nothing_is_no_training(run: RunFolder, finished: Finished) -> None:
    training = find_training(run, finished.recipe, "distill")
    for command, state in (("export", "stopped"), ("run", "running"), ("distill", "running")):
        _, writer = hold_in_process(run, command)
        assert training.state == state
        writer.kill()
        writer.wait()


def test_a_training_that_is_being_prepared(run: RunFolder, finished: Finished) -> None:
    (run / "train.jsonl").unlink()
    with run.writing(lambda _: None), pytest.raises(DataError, match=r"no log of distill yet: process \d+"):
        find_training(run, finished.recipe, "distill")


def hold_in_process(run: RunFolder, command: str = "distill") -> tuple[Path, subprocess.Popen[str]]:
    """Another process that holds the run folder; gives its lock."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from dskd_export.files.folder_lock import hold_folder\n"
        f"sys.argv[1:] = ['{command}', 'run']\n"
        f"with hold_folder(Path({str(run.path)!r}), print):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "held\n"
    return run.path / LOCK, writer


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
