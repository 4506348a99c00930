"""The training log: one JSON record a line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from dskd_export.documents import EpochRecord, StepRecord
from dskd_export.files import write_atomic

_RECORD: TypeAdapter[StepRecord | EpochRecord] = TypeAdapter(
    Annotated[StepRecord | EpochRecord, Field(discriminator="kind")]
)


class TrainingLog:
    """Append-only JSON lines. Opening it for a resumed run drops what was logged after the checkpoint.

    Args:
        path: the file.
        keep_steps: records of later steps are dropped; 0 starts anew.
        keep_epochs: records of the ends of so many epochs are kept.
    """

    def __init__(self, path: Path, keep_steps: int, keep_epochs: int) -> None:
        kept = [
            line
            for line, record in _records(path)
            if record.step <= keep_steps and (isinstance(record, StepRecord) or record.epoch < keep_epochs)
        ]
        write_atomic(path, "".join(kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: StepRecord | EpochRecord) -> None:
        """Append one record; it is on its way to the disk when this returns."""
        self._file.write(record.model_dump_json() + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Bring all records to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _records(path: Path) -> Iterator[tuple[str, StepRecord | EpochRecord]]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            if line.endswith("\n"):
                yield line, _RECORD.validate_json(line)
                continue
        except ValidationError:
            pass
        return  # a line that a kill cut in half; nothing after it counts
