"""The state of a training on disk: where an interrupted run resumes, and the best student.

    last.pt              the newest complete state
    step-0000001200.pt   older states, where more than one is kept
    best-0007.pt         the student of epoch 7, the best one of the states here

One training has the folder. The first file of another one is preceded by `before_first_write`.

No file is ever edited: each is written next to its place, synced, and renamed. The best student has its
epoch in its name, so that a state always finds the one that it speaks of, wherever a kill came in between.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dskd_export.errors import CheckpointError
from dskd_export.files.atomic import atomic_path

FORMAT = 3


@dataclass(frozen=True)
class OtherTraining:
    """A training with other settings, whose states lie in the same folder."""

    step: int
    top1: float | None  # of its best epoch, a fraction in [0, 1]; None: no epoch has ended
    settings: dict[str, Any] | None  # as they were saved; None: by a version that saved none


@dataclass
class Progress:
    """Where a training stands; all counts are of finished work."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_epoch: int = -1
    best: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    train_seconds: float = 0.0
    train_images: int = 0
    epoch_loss_sum: float = 0.0
    skipped: list[str] = field(default_factory=list)


class CheckpointStore:
    """The states of one training in one folder.

    Args:
        settings_sha256: digest of all that shapes the training. A checkpoint of other settings is
            not continued.
        keep: how many states stay.
        settings: what the digest is of, for people; of plain values, lists and dicts.

    Attributes:
        before_first_write: called once, before the first file here is written or replaced.
        before_commit: called each time that a state is on the disk, just before it takes its name.
        passed_over: damaged states that `load` found newer than the one that it gave.
        other: the training of the newest state with other settings that `load` found; None: there was none.
    """

    def __init__(
        self, folder: Path, settings_sha256: str, keep: int = 1, settings: dict[str, Any] | None = None
    ) -> None:
        self.folder = folder
        self.settings_sha256 = settings_sha256
        self.keep = keep
        self.settings = settings
        self.before_first_write: Callable[[], None] | None = None
        self.before_commit: Callable[[], None] | None = None
        self.passed_over: list[Path] = []
        self.other: OtherTraining | None = None
        # The state in last.pt where it is known to be good, and the best epochs of the older ones:
        # None where an earlier process wrote them.
        self._last_step: int | None = None
        self._last_best = -1
        self._older: dict[Path, int | None] = {}

    @property
    def last_path(self) -> Path:
        """The newest complete state."""
        return self.folder / "last.pt"

    def best_path(self, epoch: int) -> Path:
        """The student's weights after an epoch that was the best one."""
        return self.folder / f"best-{epoch:04d}.pt"

    def save(self, progress: Progress, state: dict[str, Any]) -> None:
        """Write the newest state, then delete those that are too many.

        `state` holds only tensors, numbers, strings, lists and dicts.
        """
        self._begin_to_write()
        content = {
            "format": FORMAT,
            "settings_sha256": self.settings_sha256,
            "settings": self.settings,
            "progress": asdict(progress),
            **state,
        }
        _write(self.last_path, content, lambda: self._make_room(progress.step))
        self._last_step, self._last_best = progress.step, progress.best_epoch
        self._prune()

    def save_best(self, student: nn.Module, epoch: int) -> None:
        """Write the student of the best epoch so far."""
        self._begin_to_write()
        weights = {name: tensor.detach().cpu() for name, tensor in student.state_dict().items()}
        content = {"settings_sha256": self.settings_sha256, "student": weights}
        _write(self.best_path(epoch), content)

    def load(self, device: torch.device) -> tuple[Progress, dict[str, Any]] | None:
        """The newest state that is whole, or None where there is none of these settings.

        Raises:
            CheckpointError: all of them are damaged, or the best student that it speaks of cannot be had.
        """
        older = sorted(self.folder.glob("step-*.pt"), reverse=True)
        paths = [path for path in (self.last_path, *older) if path.exists()]
        self.passed_over, self.other = [], None
        failure: CheckpointError | None = None
        for number, path in enumerate(paths):
            try:
                content = _read(path, device)
                if content["format"] != FORMAT or content["settings_sha256"] != self.settings_sha256:
                    self.other = self.other or _describe_other(content)
                    continue
                progress = Progress(**content["progress"])
                if progress.best_epoch >= 0:
                    self.load_best(progress.best_epoch)  # better known now than at the end
            except (CheckpointError, KeyError, TypeError) as error:
                failure = failure or (error if isinstance(error, CheckpointError) else _damage_error(path))
                self.passed_over.append(path)
                continue
            self._older = dict.fromkeys(paths[number + 1 :])
            if path == self.last_path:
                self._last_step, self._last_best = progress.step, progress.best_epoch
            else:
                self._older[path] = progress.best_epoch
            return progress, content
        if failure is not None:
            raise failure
        return None

    def load_best(self, epoch: int) -> dict[str, Tensor]:
        """The student's weights after an epoch that was the best one.

        Raises:
            CheckpointError: the file is missing, damaged, or of a training with other settings.
        """
        path = self.best_path(epoch)
        content = _read(path, torch.device("cpu"))
        try:
            if content["settings_sha256"] != self.settings_sha256:
                raise CheckpointError(
                    f"{path} is of a training with other settings.",
                    f"Delete {self.folder} to train from the start.",
                )
            weights: dict[str, Tensor] = content["student"]
        except (KeyError, TypeError) as error:
            raise _damage_error(path) from error
        return weights

    def _begin_to_write(self) -> None:
        before, self.before_first_write = self.before_first_write, None
        if before is not None:
            before()

    def _make_room(self, step: int) -> None:
        if self.before_commit is not None:
            self.before_commit()
        if self.keep > 1 and self._last_step is not None and self._last_step != step:
            # Killed between this and the renaming of the new one: `load` finds the state under this name.
            older = self.folder / f"step-{self._last_step:010d}.pt"
            self.last_path.replace(older)
            self._older[older] = self._last_best

    def _prune(self) -> None:
        """Delete what no kept state needs: also what a kill, or a training of other settings, has left."""
        kept = sorted(self._older, reverse=True)[: self.keep - 1]
        self._older = {path: self._older[path] for path in kept}
        # The best epoch only ever rises from state to state; -1: none yet, or not known here.
        oldest = min([self._last_best, *(-1 if best is None else best for best in self._older.values())])
        needed = {self.best_path(epoch) for epoch in range(max(0, oldest), self._last_best + 1)}
        for path in self.folder.glob("step-*.pt"):
            if path not in self._older:
                path.unlink()
        for path in self.folder.glob("best-*.pt"):
            if path not in needed:
                path.unlink()
        for path in self.folder.glob(".*.pt"):  # half of a file, whose writer was killed
            path.unlink()


def _describe_other(content: dict[str, Any]) -> OtherTraining:
    progress, settings = content["progress"], content.get("settings")
    top1 = progress["best"].get("top1", {}).get("value") if isinstance(progress.get("best"), dict) else None
    return OtherTraining(progress["step"], top1, settings if isinstance(settings, dict) else None)


def _write(path: Path, content: dict[str, Any], before_commit: Callable[[], None] | None = None) -> None:
    """Write atomically; the callback runs when all is written, before the new file takes its name."""
    buffer = io.BytesIO()  # torch.save reports a full disk as a RuntimeError
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
        if before_commit is not None:
            before_commit()


def _read(path: Path, device: torch.device) -> Any:
    if not path.exists():
        raise _damage_error(path)
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged file makes the unpickler trip over anything
        raise _damage_error(path) from error


def _damage_error(path: Path) -> CheckpointError:
    what = "damaged" if path.exists() else "missing"
    return CheckpointError(f"{path} is {what}.", f"Delete {path.parent} to train from the start.")
