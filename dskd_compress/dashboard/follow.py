"""Records of a log that another process writes."""

from __future__ import annotations

import os
from pathlib import Path

from dskd_export.documents.base import MAX_RECORD
from dskd_export.documents.training import TrainingRecord, read_record
from dskd_export.errors import DataError
from dskd_export.files.atomic import NotAPlainFile, open_plain
from dskd_export.files.json_text import InvalidJson


class Follower:
    """Gives the records that came since it was last asked.

    Args:
        path: of the log; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._offset = 0
        self._lines = 0

    def read(self) -> tuple[list[TrainingRecord], bool]:
        """New records, and whether they begin the log anew: a training that is gone on with replaces its file.

        Half a line, which is being written, waits for its other half.

        Raises:
            DataError: a whole line is no record, or the log is no plain file.
        """
        try:
            with open_plain(self.path, follow_links=True) as file:
                status = os.fstat(file.fileno())
                anew = status.st_ino != self._file or status.st_size < self._offset
                if anew:
                    self._file, self._offset, self._lines = status.st_ino, 0, 0
                file.seek(self._offset)
                records = []
                while (line := file.readline(MAX_RECORD + 1)).endswith(b"\n") or len(line) > MAX_RECORD:
                    records.append(self._record(line))
                    self._offset += len(line)
        except FileNotFoundError:
            return [], False
        except NotAPlainFile as error:
            raise DataError(f"{self.path} is not a plain file.", "Name the folder of a run.") from error
        return records, anew

    def _record(self, line: bytes) -> TrainingRecord:
        self._lines += 1
        try:
            return read_record(line)
        except InvalidJson as error:
            raise DataError(
                f"{self.path}, line {self._lines}: not a training record.",
                "Was it written by another version? Look at it with the one that wrote it.",
            ) from error
