"""The training log: one JSON record a line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dskd_export.documents.base import MAX_RECORD
from dskd_export.documents.training import DiagnosisRecord, EpochRecord, TrainingRecord, read_record
from dskd_export.files.atomic import open_log, write_atomic
from dskd_export.files.bounded import read_lines
from dskd_export.files.json_text import InvalidJson


class TrainingLog:
    """Append-only JSON lines. Opening it for a resumed run drops what was logged after the checkpoint.

    Args:
        keep_steps: records of later steps are dropped; 0 starts anew.
        keep_epochs: records of the ends of so many epochs are kept.

    Attributes:
        diagnoses: the close looks among the records that were kept.
        reached: the last record of each kind that was written before, dropped ones too: step -> its number,
            epoch -> its number, diagnosis -> its step. Empty for a new log.
    """

    def __init__(self, path: Path, keep_steps: int, keep_epochs: int) -> None:
        self.diagnoses: list[DiagnosisRecord] = []
        self.reached: dict[str, int] = {}
        kept = []
        for line, record in _records(path) if keep_steps > 0 else ():
            self.reached[record.kind] = number_of(record)
            if record.step > keep_steps or (isinstance(record, EpochRecord) and record.epoch >= keep_epochs):
                continue
            kept.append(line)
            if isinstance(record, DiagnosisRecord):
                self.diagnoses.append(record)
        write_atomic(path, b"".join(kept))
        self._file = open_log(path, append=True)

    def write(self, record: TrainingRecord) -> None:
        """Append one record; it is on its way to the disk when this returns."""
        self._file.write(record.model_dump_json() + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Bring all records to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def number_of(record: TrainingRecord) -> int:
    """Where a record stands among those of its kind: the epoch of an epoch's end, else the step."""
    return record.epoch if isinstance(record, EpochRecord) else record.step


def _records(path: Path) -> Iterator[tuple[bytes, TrainingRecord]]:
    if not path.exists():
        return
    for line in read_lines(path, MAX_RECORD + 1):
        try:
            if line.endswith(b"\n"):
                yield line, read_record(line)
                continue
        except InvalidJson:
            pass
        return  # a line that a kill cut in half; nothing after it counts
