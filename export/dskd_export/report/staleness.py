"""Find results that no longer belong to the files in the run folder.

Each stage recorded the sha256 of every file it read and wrote. The report hashes the files again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from dskd_export.documents.base import StageRecord
from dskd_export.files.atomic import sha256_file

# The way of the data; stages that are not named here come last, by name.
STAGE_ORDER = ("train", "distill", "export", "build", "validate", "benchmark")

FileState = Literal["same", "changed", "gone", "outside"]


@dataclass(frozen=True)
class FileCheck:
    """A recorded file compared with the file that is there now."""

    name: str
    recorded: str
    state: FileState


@dataclass(frozen=True)
class StageCheck:
    """A stage, its files, and why it is stale (empty: it is not)."""

    record: StageRecord
    inputs: tuple[FileCheck, ...]
    outputs: tuple[FileCheck, ...]
    stale_because: tuple[str, ...]
    altered: tuple[str, ...]  # outputs that are no longer what the stage wrote

    @property
    def stale(self) -> bool:
        """The result does not belong to the inputs that are there now."""
        return bool(self.stale_because)


class FileHashes:
    """sha256 of files inside one folder, each read once; nothing outside the folder is opened."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._known: dict[str, str | None] = {}

    def path(self, name: str) -> Path | None:
        """The file of that name inside the folder; None where the name leads elsewhere."""
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts:
            return None
        path = self._folder / pure
        try:
            path.is_file()
            return path if path.resolve().is_relative_to(self._folder) else None
        except (OSError, ValueError, RuntimeError):  # a name that no file has, or links in a circle
            return None

    def sha256(self, name: str) -> str | None:
        """Hash of the file; None where there is no such file in the folder."""
        if name not in self._known:
            path = self.path(name)
            self._known[name] = sha256_file(path) if path is not None and path.is_file() else None
        return self._known[name]


def check_stages(stages: Sequence[StageRecord], hashes: FileHashes) -> list[StageCheck]:
    """Compare each stage's record with the files, in the order in which the stages run.

    A stage is stale where a file that it read has changed or is gone, or where it read the output of
    a stage that is itself stale. An input that never was a file of the run folder (a data set, a
    pretrained model) cannot be checked here and counts as `outside`. The record of an earlier report is
    left out: this report takes its place.
    """
    stages = [stage for stage in stages if stage.stage != "report"]
    written = {name for stage in stages for name in stage.outputs}
    made_by = {name: stage.stage for stage in stages for name in stage.outputs}
    stale: set[str] = set()
    checks = []
    for record in sorted(stages, key=_order):
        inputs = tuple(_check(name, sha, hashes, name in written) for name, sha in record.inputs.items())
        outputs = tuple(_check(name, sha, hashes, True) for name, sha in record.outputs.items())
        why = [
            f"{item.name} {_HAPPENED[item.state]} the stage read it" for item in inputs if item.state in _HAPPENED
        ]
        why += [
            f"{item.name} comes from {made_by[item.name]}, which is stale"
            for item in inputs
            if item.state == "same" and made_by.get(item.name) in stale - {record.stage}
        ]
        if why:
            stale.add(record.stage)
        altered = tuple(
            f"{item.name} {_HAPPENED[item.state]} the stage wrote it"
            for item in outputs
            if item.state in _HAPPENED
        )
        checks.append(StageCheck(record, inputs, outputs, tuple(why), altered))
    return checks


_HAPPENED: dict[FileState, str] = {"changed": "has changed since", "gone": "is gone since"}


def _order(stage: StageRecord) -> tuple[int, str]:
    known = stage.stage in STAGE_ORDER
    return (STAGE_ORDER.index(stage.stage) if known else len(STAGE_ORDER), stage.stage)


def _check(name: str, recorded: str, hashes: FileHashes, expected: bool) -> FileCheck:
    now = hashes.sha256(name)
    if now is None:
        return FileCheck(name, recorded, "gone" if expected else "outside")
    return FileCheck(name, recorded, "same" if now == recorded else "changed")
