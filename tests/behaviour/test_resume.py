"""A distillation that is stopped goes on with the same command and ends as if it had not been."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from process_support import exit_codes, start
from run_support import QUIET, STEPS, Finished, records, small_recipe

from dskd_compress.cli import main
from dskd_compress.recipe import dump_recipe
from dskd_compress.stages.distill import run_distill
from dskd_compress.training.log import TrainingLog
from dskd_export.documents.training import EpochRecord, TrainingRecord


def test_stopped_and_gone_on_with(finished: Finished, tmp_path: Path, no_document_yet: None) -> None:
    folder = finished.with_teacher(tmp_path / "run")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(finished.recipe), encoding="utf-8")
    command = ["distill", str(recipe), "--out", str(folder.path)]

    said = tmp_path / "said"
    assert exit_codes(start(command, said, ("sigterm at batch", 14))) == [130]
    text = said.read_text()
    assert "Stopped by SIGTERM after step 14 of 22" in text
    assert text.endswith(f"Interrupted. Resume with: dskd-compress distill {folder.path}\n")
    assert "error:" not in text
    assert "Traceback" not in text
    assert not (folder / "student.safetensors").exists()

    # And now to the end, as it was told.
    assert main(shlex.split(text.splitlines()[-1].partition("dskd-compress ")[2])) == 0
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
    folder = finished.with_teacher(tmp_path / "run")
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
    names = sorted(path.name for path in finished.folder.checkpoints(role).iterdir())
    assert len(names) == 2
    assert names[0].startswith("best-")
    assert names[1] == "last.pt"
    assert not [path for path in finished.folder.path.rglob("*") if path.name.startswith(".")]
