"""A whole run that is small enough for tests, and what several files ask of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dskd_compress.config import Recipe
from dskd_compress.console import Output
from dskd_compress.recipe import recipe_from_mapping
from dskd_compress.run_folder import STAGE_NAMES, RunFolder

if TYPE_CHECKING:
    from dskd_compress.stages.pipeline import StageOutcome

QUIET = Output(json_output=True)  # stdout stays empty

# One thread and no worker: the same numbers in any process.
_TRAINING = {"epochs": 2, "batch_size": 32, "optimizer": "adamw", "lr": 2e-3, "threads": 1}
SMALL: dict[str, Any] = {
    "name": "small",
    "data": {
        "source": "digits",
        "input_size": 32,
        "workers": 0,
        "val_fraction": 0.8,
        "augment": {"hflip": 0.0, "scale": [0.8, 1.0]},
    },
    "teacher": {"name": "test_resnet", "pretrained": False, "train": _TRAINING},
    "student": {"name": "test_efficientnet", "pretrained": False},
    "method": {"name": "dskd", "stats_batches": 2},
    "train": _TRAINING,
    "export": {"golden_images": 5},
    "validate": {"images": 70, "batches": [1, 3]},
    "budget": {"student_drop": 0.3},  # two epochs are few, and so are 70 images
    "benchmark": {
        "batches": [1, 2],
        "threads": 1,
        "min_seconds": 0.05,
        "min_iterations": 10,
        "max_warmup_seconds": 0.2,
    },
}
# It tunes for no precision.
SMALL_STAGES = tuple(name for name in STAGE_NAMES if name != "tune")
OUTCOMES = "outcomes.json"
STEPS = 22  # two epochs of 359 // 32 batches


def small_recipe(*overrides: str) -> Recipe:
    """Ten classes of digits at 32 px, 359 of them to train on."""
    return recipe_from_mapping(SMALL, list(overrides))


@dataclass(frozen=True)
class Finished:
    """A run that went through all stages. Copy it before changing anything in it."""

    recipe: Recipe
    folder: RunFolder
    outcomes: tuple[StageOutcome, ...]

    def copy(self, to: Path) -> RunFolder:
        """The same run elsewhere."""
        shutil.copytree(self.folder.path, to)
        return RunFolder(to)

    def with_teacher(self, to: Path) -> RunFolder:
        """A run folder that has the trained teacher and nothing else."""
        folder = RunFolder(to)
        folder.create()
        shutil.copyfile(self.folder / "teacher.safetensors", folder / "teacher.safetensors")
        return folder


def make_finished(recipe: Recipe, folder: Path) -> None:
    """Run all stages in `folder`/run, and keep their outcomes next to it."""
    from dskd_compress.stages.pipeline import run_pipeline

    outcomes = [dataclasses.asdict(one) for one in run_pipeline(recipe, RunFolder(folder / "run"), QUIET)]
    (folder / OUTCOMES).write_text(json.dumps(outcomes), encoding="utf-8")


def read_outcomes(folder: Path) -> tuple[StageOutcome, ...]:
    """Read what `make_finished` kept there."""
    from dskd_compress.stages.pipeline import StageOutcome

    return tuple(StageOutcome(**one) for one in json.loads((folder / OUTCOMES).read_text(encoding="utf-8")))


def records(path: Path) -> list[dict[str, Any]]:
    """A training log without what depends on the clock."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in line.items() if k not in ("images_per_s", "data_wait", "seconds")} for line in lines]
