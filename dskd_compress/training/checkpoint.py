"""The state of a training on disk: what an interrupted run goes on from, and the best student."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dskd_export.errors import CheckpointError
from dskd_export.files import atomic_path

FORMAT = 1


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


class CheckpointStore:
    """`last.pt` and `best.pt` in one folder. Both are replaced atomically, never edited.

    Args:
        folder: made when the first checkpoint is written.
        settings_sha256: digest of all that shapes the training. A checkpoint of other settings is
            not continued.

    Attributes:
        before_first_save: called once, when this training's first state is on the disk, just before it counts.
    """

    def __init__(self, folder: Path, settings_sha256: str) -> None:
        self.folder = folder
        self.settings_sha256 = settings_sha256
        self.before_first_save: Callable[[], None] | None = None

    @property
    def last_path(self) -> Path:
        """The newest complete state."""
        return self.folder / "last.pt"

    @property
    def best_path(self) -> Path:
        """The student's weights of the best epoch."""
        return self.folder / "best.pt"

    def save(self, progress: Progress, state: dict[str, Any]) -> None:
        """Write the newest state; `state` holds only tensors, numbers, strings, lists and dicts."""
        content = {
            "format": FORMAT,
            "settings_sha256": self.settings_sha256,
            "progress": asdict(progress),
            **state,
        }
        then, self.before_first_save = self.before_first_save, None
        self._write(self.last_path, content, then)

    def save_best(self, student: nn.Module) -> None:
        """Write the student of the best epoch so far."""
        weights = {name: tensor.detach().cpu() for name, tensor in student.state_dict().items()}
        self._write(self.best_path, {"settings_sha256": self.settings_sha256, "student": weights})

    def load(self, device: torch.device) -> tuple[Progress, dict[str, Any]] | None:
        """The newest state, or None where there is none of these settings.

        Raises:
            CheckpointError: the file is damaged.
        """
        if not self.last_path.exists():
            return None
        content = _read(self.last_path, device)
        try:
            if content["format"] != FORMAT or content["settings_sha256"] != self.settings_sha256:
                return None
            return Progress(**content["progress"]), content
        except (KeyError, TypeError) as error:
            raise _damaged(self.last_path) from error

    def load_best(self) -> dict[str, Tensor]:
        """The student's weights of the best epoch.

        Raises:
            CheckpointError: the file is missing, damaged, or of a training with other settings.
        """
        content = _read(self.best_path, torch.device("cpu"))
        try:
            if content["settings_sha256"] != self.settings_sha256:
                # Left by a training that was begun with other settings and killed in its first epoch.
                raise CheckpointError(
                    f"{self.best_path} is of a training with other settings than {self.last_path.name}.",
                    f"Delete {self.folder} to train from the start.",
                )
            weights: dict[str, Tensor] = content["student"]
        except (KeyError, TypeError) as error:
            raise _damaged(self.best_path) from error
        return weights

    def _write(
        self, path: Path, content: dict[str, Any], before_it_counts: Callable[[], None] | None = None
    ) -> None:
        """Write atomically; the callback runs when all is on the disk, before the new file takes its name."""
        buffer = io.BytesIO()  # torch.save tells a full disk by a RuntimeError of its own
        torch.save(content, buffer)
        with atomic_path(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
            if before_it_counts is not None:
                before_it_counts()


def _read(path: Path, device: torch.device) -> Any:
    if not path.exists():
        raise _damaged(path)
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged file makes the unpickler trip over anything
        raise _damaged(path) from error


def _damaged(path: Path) -> CheckpointError:
    what = "damaged" if path.exists() else "missing"
    return CheckpointError(f"{path} is {what}.", f"Delete {path.parent} to train from the start.")
