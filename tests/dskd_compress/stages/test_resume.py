"""A distillation that is killed goes on with the same command and ends as if it had not been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_support import QUIET, STEPS, Finished, records, small_recipe

from dskd_compress.cli import main
from dskd_compress.recipe import dump_recipe
from dskd_compress.run_folder import RunFolder
from dskd_compress.stages.distill import run_distill
from dskd_compress.training.log import TrainingLog
from dskd_export.documents import EpochRecord, TrainingRecord

EVERY = 4  # steps between checkpoints
ROOT = Path(__file__).resolve().parents[3]


def steps_logged(folder: RunFolder) -> int:
    if not folder.log("student").exists():
        return 0
    lines = folder.log("student").read_text(encoding="utf-8").splitlines(keepends=True)
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


def run_until(arguments: list[str], folder: RunFolder, step: int, number: signal.Signals) -> subprocess.Popen[str]:
    """Start the command line in a process of its own, and send it a signal once a step was logged."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "export")])
    process = subprocess.Popen(
        [sys.executable, "-m", "dskd_compress", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not step <= steps_logged(folder) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(number)
    return process


def test_killed_and_stopped_and_still_the_same_student(
    finished: Finished, tmp_path: Path, no_document_yet: None
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    (folder / "teacher.safetensors").write_bytes((finished.folder / "teacher.safetensors").read_bytes())
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(finished.recipe), encoding="utf-8")
    command = ["distill", str(recipe), "--out", str(folder.path), "--set", f"train.checkpoint_steps={EVERY}"]

    # Pulled out in the first epoch, between two checkpoints.
    process = run_until(command, folder, EVERY + 1, signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, error
    assert not (folder / "student.safetensors").exists()
    killed_at = steps_logged(folder)
    assert EVERY < killed_at < STEPS

    # Asked to stop in what comes after.
    process = run_until(command, folder, max(killed_at, STEPS // 2) + 1, signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Stopped by SIGTERM after step" in error
    assert "The same command goes on from there." in error
    assert "Traceback" not in error
    assert not (folder / "student.safetensors").exists()
    assert killed_at < steps_logged(folder) < STEPS

    # And now to the end.
    assert main(command) == 0
    for name in ("student.safetensors", "teacher.safetensors"):
        assert (folder / name).read_bytes() == (finished.folder / name).read_bytes()
    assert records(folder.log("student")) == records(finished.folder.log("student"))
    before, after = (json.loads((place / "distill.json").read_text()) for place in (finished.folder, folder))
    for document in (before, after):
        for varying in ("provenance", "peak_memory_mb", "images_per_s"):
            del document[varying]
    assert after == before


@pytest.mark.parametrize("written", [False, True], ids=["before its record", "after its record"])
def test_a_kill_at_the_end_of_an_epoch_loses_and_doubles_nothing(
    written: bool, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last step of an epoch, which is saved here, and the epoch's own checkpoint."""
    folder = RunFolder(tmp_path / "run")
    folder.create()
    (folder / "teacher.safetensors").write_bytes((finished.folder / "teacher.safetensors").read_bytes())
    recipe = small_recipe(f"train.checkpoint_steps={STEPS // 2}")
    real = TrainingLog.write

    def write(self: TrainingLog, record: TrainingRecord) -> None:
        if not isinstance(record, EpochRecord) or written:
            real(self, record)
        if isinstance(record, EpochRecord):
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingLog, "write", write)
    with pytest.raises(KeyboardInterrupt):
        run_distill(recipe, folder, QUIET)
    monkeypatch.undo()
    run_distill(recipe, folder, QUIET)
    assert records(folder.log("student")) == records(finished.folder.log("student"))
    assert (folder / "student.safetensors").read_bytes() == (finished.folder / "student.safetensors").read_bytes()


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_no_half_written_file_is_left(role: str, finished: Finished) -> None:
    assert {path.name for path in finished.folder.checkpoints(role).iterdir()} == {"last.pt", "best.pt"}
    assert not [path for path in finished.folder.path.rglob("*") if path.name.startswith(".")]
