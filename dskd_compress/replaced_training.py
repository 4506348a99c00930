"""A training with other settings in a used run folder: what it replaces is printed first, and kept.

The settings of an earlier training that was replaced resume that training.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import torch

from dskd_compress.config import Recipe
from dskd_compress.console import Output
from dskd_compress.run_folder import DISTILL, TRAIN, TUNE, RunFolder
from dskd_compress.run_folder.earlier import (
    bring_back,
    describe_changes,
    discard_oldest,
    keep_training,
    list_earlier,
    next_earlier,
    training_settings,
)
from dskd_compress.training.checkpoint import CheckpointStore, OtherTraining
from dskd_export.documents.base import read_document
from dskd_export.documents.training import TrainingDocument
from dskd_export.errors import DskdError

_ROLES = {
    "teacher": (TRAIN, "teacher.json", "the teacher"),
    "student": (DISTILL, "distill.json", "the student"),
    "tuned": (TUNE, "tune.json", "the tuned student"),
}
STAGE_OF = {role: stage for role, (stage, *_) in _ROLES.items()}
"""The stage that a role is trained in."""

_RESULTS = ("bundle/manifest.json", "validation.json", "benchmark.json")


def bring_back_earlier(folder: RunFolder, role: str, store: CheckpointStore, output: Output) -> bool:
    """Put an earlier training with the settings of `store` back in its place; False where there is none."""
    for source in list_earlier(folder):
        earlier = CheckpointStore(source.checkpoints(role), store.settings_sha256, store.keep)
        try:
            found = earlier.load(torch.device("cpu"))
        except DskdError:  # damaged: it stays as it is
            continue
        if found is not None:
            del found
            bring_back(folder, source, role)
            output.plain(f"These are the settings of {source.path}: that training is back in its place.")
            return True
    return False


def keep_replaced(folder: RunFolder, role: str, store: CheckpointStore, recipe: Recipe, output: Output) -> None:
    """Print what a training that starts anew replaces, and keep that before the first file is replaced.

    Does nothing in a folder without an earlier training of that role.
    """
    stage, document, what = _ROLES[role]
    there = store.other or _read_finished(folder, document)
    if there is None:
        return
    before = there.settings or _read_settings(folder, stage)
    changes = "" if before is None else describe_changes(before, store.settings or {})
    if not changes:
        changes = "its checkpoint is missing" if store.other is None else "saved by another dskd-compress"
    accuracy = "" if there.top1 is None else f" (top-1 {100 * there.top1:.1f} %)"
    results = any((folder / name).is_file() for name in _RESULTS)
    also = ", its bundle and results are" if results else " is"
    output.warn(f"{changes}: {what} of step {there.step}{accuracy}{also} replaced at the first checkpoint")
    path = shlex.quote(str(next_earlier(folder).path))
    output.plain(f"It is kept as a separate run. To resume or export it: dskd-compress run {path}")

    def keep() -> None:
        keep_training(folder)
        discard_oldest(folder)

    store.before_first_write = keep


def _read_finished(folder: RunFolder, name: str) -> OtherTraining | None:
    """Read a finished training whose checkpoint was deleted."""
    try:
        document = read_document(folder / name, TrainingDocument)
    except (DskdError, OSError):
        return None
    return OtherTraining(document.steps, document.best.top1.value, None)


def _read_settings(folder: RunFolder, stage: str) -> Mapping[str, Any] | None:
    """Read the settings of a training from the run's recipe, where its checkpoint has none."""
    try:
        return training_settings(folder, stage, folder.read_recipe(), {})
    except DskdError:
        return None
