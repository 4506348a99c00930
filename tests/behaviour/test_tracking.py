"""Trackers beside a real distillation that is interrupted and goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_support import QUIET, STEPS, Finished, records, small_recipe

from dskd_compress.stages.distill import run_distill
from dskd_compress.training.log import TrainingLog
from dskd_export.documents.training import StepRecord, TrainingRecord


def test_an_interrupted_distillation_is_one_run_with_each_step_once(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last checkpoint is from before the steps that were tracked last: they are made again, not told again."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = finished.with_teacher(tmp_path / "run")
    recipe = small_recipe("train.checkpoint_steps=4", "tracking.trackers=[tensorboard]", "tracking.every_steps=1")
    real = TrainingLog.write

    def write(self: TrainingLog, record: TrainingRecord) -> None:
        if isinstance(record, StepRecord) and record.step == 11:
            raise KeyboardInterrupt
        real(self, record)

    monkeypatch.setattr(TrainingLog, "write", write)
    with pytest.raises(KeyboardInterrupt):
        run_distill(recipe, folder, QUIET)
    monkeypatch.undo()
    run_distill(recipe, folder, QUIET)

    (place,) = (folder.trackers / "tensorboard").iterdir()
    events = EventAccumulator(str(place)).Reload()
    losses = [(event.step, event.value) for event in events.Scalars("train/loss")]
    logged = [line for line in records(folder.log("student")) if line["kind"] == "step"]
    assert losses == [(line["step"], pytest.approx(line["losses"]["loss"])) for line in logged]
    assert len(losses) == STEPS
    assert [event.step for event in events.Scalars("epoch/top1")] == [STEPS // 2, STEPS]
    assert [event.step for event in events.Scalars("gradient/ce")] == [1, 2, 3, STEPS]
    # The student is that of a run without trackers and without an interruption.
    assert (folder / "student.safetensors").read_bytes() == (finished.folder / "student.safetensors").read_bytes()
