"""Follow the records of a log that another process writes."""

from __future__ import annotations

import os
from pathlib import Path

from dskd_export.documents.base import MAX_RECORD
from dskd_export.documents.training import TrainingRecord, read_record
from dskd_export.errors import DataError
from dskd_export.files.atomic import NotAPlainFile, open_plain
from dskd_export.files.json_text import InvalidJson


class Follower:
    """Reads the new records of a log."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._offset = 0
        self._lines = 0

    def read(self) -> tuple[list[TrainingRecord], bool]:
        """Read the new records, and whether the log starts again: a resumed training replaces its file.

        An incomplete last line is read on the next call.

        Raises:
            DataError: a line is no record, or the log is no plain file.
        """
        try:
            with open_plain(self.path, follow_links=True) as file:
                status = os.fstat(file.fileno())
                restarted = status.st_ino != self._file or status.st_size < self._offset
                if restarted:
                    self._file, self._offset, self._lines = status.st_ino, 0, 0
                file.seek(self._offset)
                records = []
                while (line := file.readline(MAX_RECORD + 1)).endswith(b"\n") or len(line) > MAX_RECORD:
                    records.append(self._parse(line))
                    self._offset += len(line)
        except FileNotFoundError:
            return [], False
        except NotAPlainFile as error:
            raise DataError(f"{self.path} is not a plain file.", "Give the folder of a run.") from error
        return records, restarted

    def _parse(self, line: bytes) -> TrainingRecord:
        self._lines += 1
        try:
            return read_record(line)
        except InvalidJson as error:
            raise DataError(
                f"{self.path}, line {self._lines}: not a training record.",
                "Use the version of dskd-compress that wrote the log.",
            ) from error
