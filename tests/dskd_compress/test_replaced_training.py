"""Other settings in a used run folder: what they replace is printed first and kept, and comes back."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from run_support import QUIET, STEPS, Finished, records, small_recipe

from dskd_compress.console import Output
from dskd_compress.run_folder import RunFolder, earlier
from dskd_compress.run_folder.earlier import list_earlier
from dskd_compress.stages.distill import run_distill
from dskd_compress.training.checkpoint import CheckpointStore
from dskd_compress.training.loop import Trainer
from dskd_export.files.atomic import atomic_folder, sha256_file

TYPO = ("train.lr=3e-3", "student.name=test_vit")
ARTEFACTS = ("student.safetensors", "distill.json", "train.jsonl", "recipe.yaml", "teacher.safetensors")


class Killed(BaseException):
    """In place of a kill: nothing of the program catches it."""


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step is taken any more."""

    def fail(*_: object) -> None:
        raise AssertionError("a step was taken")

    monkeypatch.setattr(Trainer, "_step", fail)


@pytest.fixture
def used(finished: Finished, tmp_path: Path) -> RunFolder:
    return finished.copy(tmp_path / "run")


def stop_after_first_checkpoint(folder: RunFolder, *overrides: str) -> None:
    """Train with other settings until the end of the first epoch."""
    real = CheckpointStore.save

    def save(self: CheckpointStore, *arguments: object) -> None:
        real(self, *arguments)  # type: ignore[arg-type]
        raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(CheckpointStore, "save", save)
        with pytest.raises(Killed):
            run_distill(small_recipe(*overrides), folder, Output(json_output=False))


def digests(folder: RunFolder, *names: str) -> dict[str, str]:
    paths = [*(folder / name for name in names), *folder.path.glob("checkpoint/*/*.pt")]
    return {str(path.relative_to(folder.path)): sha256_file(path) for path in paths}


def test_what_is_replaced_is_printed_before_the_first_step_and_kept(
    used: RunFolder, finished: Finished, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digests(finished.folder, *ARTEFACTS)
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run_distill(small_recipe(*TYPO), used, Output(json_output=False))
    captured = capsys.readouterr()
    for change in ("student.name: test_efficientnet -> test_vit", "train.lr: 0.002 -> 0.003"):
        assert change in captured.err
    assert f"the student of step {STEPS} (top-1 " in captured.err
    assert "its bundle and results are replaced" in captured.err
    assert f"dskd-compress run {used.path / 'earlier' / '1'}" in captured.out
    # Nothing has changed yet.
    assert digests(used, *ARTEFACTS) == before
    assert not used.earlier.exists()

    stop_after_first_checkpoint(used, *TYPO)
    (kept,) = list_earlier(used)
    assert kept.path == used.path / "earlier" / "1"
    assert digests(kept, *ARTEFACTS) == before
    assert records(used.log("student"))[-1]["step"] == STEPS // 2


@pytest.mark.usefixtures("untrained")
def test_what_is_kept_is_a_run_of_its_own(used: RunFolder) -> None:
    """That resumes: here, has nothing left to train."""
    kept = earlier.keep_training(used)
    weights = (kept / "student.safetensors").read_bytes()
    (kept / "student.safetensors").unlink()
    run_distill(kept.read_recipe(), kept, QUIET)
    assert (kept / "student.safetensors").read_bytes() == weights
    assert kept.why_rerun("distill", kept.read_recipe()) is None


def test_after_a_typing_error_the_first_settings_resume_the_first_training(
    used: RunFolder, finished: Finished, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after_first_checkpoint(used, *TYPO)
    stop_after_first_checkpoint(used, "train.lr=4e-3")  # another one
    wrong = digests(used)
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", lambda *_: (_ for _ in ()).throw(AssertionError))
        run_distill(finished.recipe, used, Output(json_output=False))
    assert "that training is back in its place" in capsys.readouterr().out
    for name in ("student.safetensors", "train.jsonl", "recipe.yaml"):
        assert (used / name).read_bytes() == (finished.folder / name).read_bytes()
    assert digests(used) == digests(finished.folder)
    newest, *others = list_earlier(used)
    assert digests(newest) == wrong
    assert len(others) == earlier.KEPT - 1


@pytest.mark.parametrize("point", ["keep", "before best", "before log", "before checkpoint"])
def test_a_kill_in_between_loses_nothing(
    point: str, used: RunFolder, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while another training takes the place, nor while the first one comes back."""
    first = digests(finished.folder)
    begun = list[Path]()

    def kill(*_: object, **__: object) -> None:
        raise Killed

    def kill_second(path: Path) -> AbstractContextManager[Path]:
        begun.append(path)
        return atomic_folder(path) if len(begun) == 1 else kill()  # type: ignore[func-returns-value]

    where, fault = {
        "keep": ("dskd_compress.run_folder.earlier._link", kill),
        "before best": ("dskd_compress.training.checkpoint._write", kill),
        "before log": ("dskd_compress.run_folder.earlier.temporary_path", kill),
        "before checkpoint": ("dskd_compress.run_folder.earlier.atomic_folder", kill_second),
    }[point]

    def run(*overrides: str) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(where, fault)
            with pytest.raises(Killed):
                run_distill(small_recipe(*overrides), used, QUIET)

    if point in ("keep", "before best"):
        run(*TYPO)
    else:
        stop_after_first_checkpoint(used, *TYPO)
        run()
    assert first in [digests(one) for one in (used, *list_earlier(used))]
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", lambda *_: (_ for _ in ()).throw(AssertionError))
        run_distill(finished.recipe, used, QUIET)
    assert digests(used) == first
    assert (used / "train.jsonl").read_bytes() == (finished.folder / "train.jsonl").read_bytes()
    assert not [path for path in used.path.rglob("*") if path.name.startswith(".")]


def test_a_finished_student_without_its_checkpoint_is_kept_as_well(
    used: RunFolder, finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(used.path / "checkpoint")
    stop_after_first_checkpoint(used, "train.epochs=1")
    assert "train.epochs: 2 -> 1: the student of step" in capsys.readouterr().err
    (kept,) = list_earlier(used)
    assert (kept / "student.safetensors").read_bytes() == (finished.folder / "student.safetensors").read_bytes()


def test_the_first_training_in_a_folder_replaces_nothing(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished.with_teacher(tmp_path / "run")
    stop_after_first_checkpoint(folder)
    assert "replaced" not in capsys.readouterr().err
    assert not folder.earlier.exists()
