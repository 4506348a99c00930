"""Two commands on one run folder: one of them does it, and every record is true. The whole sweep is slow."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from process_support import exit_codes, start
from run_support import QUIET, Finished, small_recipe
from writers_support import IN_USE, false_statements, leftovers, output_of, without_stages

from dskd_compress.run_folder import RunFolder
from dskd_compress.stages import report
from dskd_compress.stages.distill import run_distill
from dskd_compress.stages.report import run_report
from dskd_export.documents.base import StageRecord, read_document
from dskd_export.errors import EnvironmentProblem
from dskd_export.files.atomic import sha256_file
from dskd_export.files.folder_lock import LOCK

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_the_second_command_is_refused_and_every_record_is_true(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    shutil.rmtree(folder.path / "checkpoint")
    first = start(["distill", str(folder.path)], tmp_path / "distill.txt")
    while first.is_alive() and not (folder / LOCK).exists():
        time.sleep(0.001)
    os.kill(first.pid or 0, signal.SIGSTOP)  # it holds the folder for as long as the others take
    commands = ("train", "export", "validate", "report", "run")
    others = [start([name, str(folder.path)], tmp_path / f"{name}.txt") for name in commands]
    codes = exit_codes(*others)
    os.kill(first.pid or 0, signal.SIGCONT)
    said = [output_of(tmp_path / f"{name}.txt") for name in commands]
    assert codes == [4] * len(commands), said
    assert all(IN_USE.search(text) and f"process {first.pid} " in text for text in said)
    assert exit_codes(first) == [0], output_of(tmp_path / "distill.txt")
    assert false_statements(folder) == []
    assert leftovers(folder) == []


def test_readers_do_not_wait(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    other = finished.copy(tmp_path / "other")
    with folder.writing(QUIET.warn):
        lines = (
            ["bundle", "show", str(folder.path)],
            ["bundle", "verify", str(folder.path)],
            ["report", str(folder.path), str(other.path), "--out", str(tmp_path / "both.html")],
            ["distill", str(folder.path), "--dry-run"],
        )
        processes = [start(line, tmp_path / str(number)) for number, line in enumerate(lines)]
        assert exit_codes(*processes) == [0, 0, 0, 0]


def test_an_input_that_changes_under_way_gives_a_record_that_is_old_and_not_false(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished.copy(tmp_path / "run")
    before = sha256_file(folder / "validation.json")
    build = report.build_report

    def build_and_change(*arguments: object, **settings: object) -> object:
        made = build(*arguments, **settings)  # type: ignore[arg-type]
        (folder / "validation.json").write_bytes((folder / "validation.json").read_bytes() + b"\n")
        return made

    monkeypatch.setattr(report, "build_report", build_and_change)
    run_report(finished.recipe, folder, QUIET)
    assert read_document(folder / "stages/report.json", StageRecord).inputs["validation.json"] == before
    assert folder.why_rerun("report", finished.recipe) == "validation.json changed"


def test_a_teacher_that_is_replaced_while_its_student_trains(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "teacher.safetensors"
    shutil.copy(finished.folder / "teacher.safetensors", checkpoint)
    before = sha256_file(checkpoint)
    recipe = small_recipe("teacher.train=null", f"teacher.checkpoint={checkpoint}", "train.epochs=1")
    folder = RunFolder(tmp_path / "run")
    write = RunFolder.write_document

    def replace_and_write(self: RunFolder, name: str, document: object) -> Path:
        if name == "distill.json":
            shutil.copy(finished.folder / "student.safetensors", checkpoint)
        return write(self, name, document)  # type: ignore[arg-type]

    monkeypatch.setattr(RunFolder, "write_document", replace_and_write)
    run_distill(recipe, folder, QUIET)
    assert read_document(folder / "stages/distill.json", StageRecord).inputs["teacher.checkpoint"] == before
    assert folder.why_rerun("distill", recipe) == "teacher.checkpoint changed"


def test_what_a_kill_left_goes_when_the_next_command_starts(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    (folder / ".bundle.0a1b2c3d.tmp").mkdir()
    for name in (".teacher.fp32.0a1b2c3d.tmp.onnx", "stages/.export.0a1b2c3d.tmp.json", LOCK):
        (folder / name).write_text("half")
    run_report(finished.recipe, folder, QUIET)
    assert leftovers(folder) == []


def test_a_benchmark_that_was_handed_in_does_not_write_through_links(finished: Finished, tmp_path: Path) -> None:
    from dskd_compress.stages.benchmark import run_benchmark

    folder = finished.copy(tmp_path / "run")
    (victim := tmp_path / "victim").mkdir()
    (victim / "file").write_text("mine")
    (folder / "benchmark.partial").symlink_to(victim)
    with pytest.raises(EnvironmentProblem, match=r"benchmark\.partial is a link"):
        run_benchmark(finished.recipe, folder, QUIET)
    assert [path.name for path in victim.iterdir()] == ["file"]


def test_killed_in_a_stage_of_run_and_started_again(finished: Finished, tmp_path: Path) -> None:
    folder, said = finished.copy(tmp_path / "run"), tmp_path / "said"
    without_stages(folder, ("export",))
    command = ["run", str(folder.path), "--to", "export"]
    process = start(command, said)
    while process.is_alive() and "export: " not in (output_of(said) if said.exists() else ""):
        time.sleep(0.001)
    os.kill(process.pid or 0, signal.SIGKILL)
    assert exit_codes(process) == [-signal.SIGKILL]
    (code,) = exit_codes(start(command, said))
    assert code == 0, output_of(said)
    assert sha256_file(folder / "bundle/manifest.json") == sha256_file(finished.folder / "bundle/manifest.json")
    assert false_statements(folder) == []
    assert leftovers(folder) == []


@pytest.mark.slow
@pytest.mark.parametrize("script", ["two_writers.py", "kill_run.py"])
def test_the_whole_sweep(script: str) -> None:
    assert subprocess.run([sys.executable, str(BENCHMARKS / script)], check=False).returncode == 0
