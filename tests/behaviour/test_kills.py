"""Killed outright, at the worst moments: the same command ends with the same student, bit for bit."""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from process_support import Fault, exit_codes, start
from run_support import QUIET, STEPS, Finished, records, small_recipe

from dskd_compress.recipe import dump_recipe
from dskd_compress.run_folder import RunFolder
from dskd_compress.stages.distill import run_distill
from dskd_export.files.atomic import sha256_file

# All that has a state: the average and its warm-up, momentum of both orders, the schedule, mixed and erased
# images, noise within the sampler.
SETTINGS = (
    "train.ema_decay=0.9",
    "train.warmup_epochs=1",
    "train.checkpoint_steps=3",
    "train.keep_checkpoints=2",
    "data.augment.mixup=0.2",
    "data.augment.erase=0.3",
    "method.start=sdedit",
)


@dataclass(frozen=True)
class Reference:
    recipe: Path
    folder: RunFolder
    finished: Finished

    def begin(self, path: Path) -> tuple[RunFolder, list[str]]:
        """A run folder with the same teacher, and the command that distils in it."""
        folder = self.finished.with_teacher(path)
        return folder, ["distill", str(self.recipe), "--out", str(path)]


@pytest.fixture(scope="module")
def never_killed(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    recipe = small_recipe(*SETTINGS)
    folder = finished.with_teacher(tmp_path_factory.mktemp("whole") / "run")
    run_distill(recipe, folder, QUIET)
    path = folder.path.parent / "recipe.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    return Reference(path, folder, finished)


def random_faults() -> list[Fault]:
    steps = sorted(random.Random(20).sample(range(1, STEPS), 3))
    return [*(("step", step) for step in steps[:2]), ("write", 2), ("step", steps[2])]


@pytest.mark.parametrize(
    "faults",
    [random_faults(), [("best", 1), ("rename", 3)]],
    ids=["at three steps and in a half-written checkpoint", "between the files of a checkpoint"],
)
def test_killed_again_and_again_and_still_the_same_student(
    faults: list[Fault], never_killed: Reference, tmp_path: Path
) -> None:
    folder, command = never_killed.begin(tmp_path / "run")
    said = tmp_path / "said"
    for fault in faults:
        assert exit_codes(start(command, said, fault)) == [-signal.SIGKILL], said.read_text()
        assert not (folder / "student.safetensors").exists()
    assert exit_codes(start(command, said)) == [0], said.read_text()
    assert "Resuming student training at step" in said.read_text()
    left, expected_left = (
        {path.name for path in place.checkpoints("student").iterdir()} for place in (folder, never_killed.folder)
    )
    assert left == expected_left
    student, expected = (place / "student.safetensors" for place in (folder, never_killed.folder))
    assert sha256_file(student) == sha256_file(expected)
    assert records(folder.log("student")) == records(never_killed.folder.log("student"))


def test_a_damaged_checkpoint_gives_way_to_the_one_before_with_a_warning(
    never_killed: Reference, tmp_path: Path
) -> None:
    folder, command = never_killed.begin(tmp_path / "run")
    said = tmp_path / "said"
    assert exit_codes(start(command, said, ("step", 8))) == [-signal.SIGKILL]
    last = folder.checkpoints("student") / "last.pt"
    last.write_bytes(last.read_bytes()[:-1000])
    assert exit_codes(start(command, said)) == [0], said.read_text()
    assert f"warning: {last} is damaged; resuming from the checkpoint before it" in said.read_text()
    assert "Resuming student training at step 3/22." in said.read_text()
    student, expected = (place / "student.safetensors" for place in (folder, never_killed.folder))
    assert sha256_file(student) == sha256_file(expected)
