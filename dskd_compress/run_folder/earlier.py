"""Trainings that others have replaced: each stays in `earlier/` as a separate run folder.

    earlier/1/    recipe.yaml, weights, documents, logs and checkpoints, as they were when it was replaced

Files of a run are replaced by renaming and never edited. A second name (a hard link) therefore keeps each of
them, and takes no room.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dskd_compress.names import DISTILL, TRAIN, TUNE
from dskd_compress.run_folder.folder import RunFolder
from dskd_compress.run_folder.stages import find_stage
from dskd_export.files.atomic import atomic_folder, temporary_path

KEPT = 2
"""Earlier trainings that stay: one typing error must not push out what the one before it has replaced."""

_STAGES = (TRAIN, DISTILL, TUNE)
# What `link` answers on file systems without a second name.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EACCES})
_INPUTS = "inputs"  # hashes of files, next to the sections of the recipe


def list_earlier(folder: RunFolder) -> list[RunFolder]:
    """List the earlier trainings of a run, the newest first."""
    if not folder.earlier.is_dir():
        return []
    numbers = sorted((int(path.name) for path in folder.earlier.iterdir() if path.name.isdecimal()), reverse=True)
    return [RunFolder(folder.earlier / str(number)) for number in numbers]


def next_earlier(folder: RunFolder) -> RunFolder:
    """Name the folder that the next replaced training gets."""
    newest = next(iter(list_earlier(folder)), None)
    return RunFolder(folder.earlier / str(1 if newest is None else int(newest.path.name) + 1))


def keep_training(folder: RunFolder) -> RunFolder:
    """Keep all that the trainings of a run have written in `earlier/`, atomically; nothing else changes.

    Raises:
        EnvironmentProblem: the disk is full, or the place cannot be written to.
    """
    kept = next_earlier(folder)
    with atomic_folder(kept.path) as new:
        for path in _list_files(folder):
            target = new / path.relative_to(folder.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(path, target)
    return kept


def bring_back(folder: RunFolder, source: RunFolder, role: str) -> None:
    """Put the checkpoints and the log of an earlier training in the place of those that are there.

    Those are kept first. A kill at any point leaves both trainings in the folder.

    Args:
        role: teacher, student or tuned.
    """
    keep_training(folder)
    # The log first: with the checkpoints still those of the other training, all of this is repeated.
    if source.log(role).is_file():
        temporary = temporary_path(folder.log(role), folder.log(role).suffix)
        _link(source.log(role), temporary)
        temporary.replace(folder.log(role))
        temporary.unlink(missing_ok=True)  # renaming one of two names of a file over the other does nothing
    with atomic_folder(folder.checkpoints(role)) as new:
        for path in sorted(source.checkpoints(role).glob("*.pt")):
            _link(path, new / path.name)
    discard_oldest(folder)


def discard_oldest(folder: RunFolder) -> None:
    """Discard the earlier trainings that are too many."""
    for one in list_earlier(folder)[KEPT:]:
        removed = temporary_path(one.path)  # a kill leaves what the next command removes
        with contextlib.suppress(OSError):
            one.path.rename(removed)
            shutil.rmtree(removed, ignore_errors=True)


def describe_changes(before: Mapping[str, Any], after: Mapping[str, Any], most: int = 3) -> str:
    """Describe what differs between the settings of two trainings: `student.name: resnet18 -> resnet34`.

    Args:
        before: sections of a recipe, and under `inputs` the hashes of files, as `training_settings` gives them.
        most: settings that are listed; the others are counted.

    Returns:
        One line; empty where nothing differs.
    """
    old, new = (dict(_flatten(one)) for one in (before, after))
    keys = [key for key in {**new, **old} if old.get(key) != new.get(key)]
    settings = [key for key in keys if key.partition(".")[0] != _INPUTS]
    if settings:
        told = [f"{key}: {_format(old.get(key))} -> {_format(new.get(key))}" for key in settings[:most]]
        return ", ".join([*told, *([f"{len(settings) - most} more"] if len(settings) > most else [])])
    files = [key.partition(".")[2] for key in keys if key in old]  # not in old: of a version that kept none
    words = {"data": "the images", "teacher": "the teacher's weights", "student": "the student"}
    return f"{' and '.join(words.get(name, name) for name in files)} changed" if files else ""


def training_settings(folder: RunFolder, stage: str, recipe: Any, inputs: Mapping[str, str]) -> dict[str, Any]:
    """Collect what a training is bound to: what `RunFolder.settings_digest` digests, readable."""
    return {**find_stage(stage).settings(recipe), _INPUTS: {**folder.hash_outside(stage, recipe), **inputs}}


def _list_files(folder: RunFolder) -> Iterator[Path]:
    stages = [find_stage(name) for name in _STAGES]
    names = ["recipe.yaml", *(name for stage in stages for name in stage.outputs + stage.optional)]
    names += [f"stages/{name}.json" for name in _STAGES]
    yield from (folder / name for name in dict.fromkeys(names) if (folder / name).is_file())
    yield from (path for path in sorted(folder.path.glob("checkpoint/*/[!.]*.pt")) if path.is_file())


def _link(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copy2(path, target)


def _flatten(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _format(value: Any) -> str:
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)
