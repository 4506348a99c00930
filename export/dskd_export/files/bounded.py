"""Read untrusted files up to a limit that is checked first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dskd_export.errors import DataError
from dskd_export.files.atomic import NotAPlainFile, open_plain


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a whole file.

    Args:
        path: a plain file, or a link to one.
        limit: the most bytes that are read.

    Raises:
        DataError: the file is larger, or a folder, a pipe or a device.
        OSError: it is missing or cannot be read.
    """
    try:
        with open_plain(path, follow_links=True) as file:
            size = os.fstat(file.fileno()).st_size
            # One byte more than the limit: the file may grow, or hold more than its size says, as in /proc.
            data = file.read(limit + 1) if size <= limit else b""
    except NotAPlainFile as error:
        raise DataError(f"{path} is not a plain file.", "Name a plain file.") from error
    if max(size, len(data)) > limit:
        raise DataError(
            f"{path} has {max(size, len(data)):,} bytes; at most {limit:,} are read.",
            "Check that it is the right file.",
        )
    return data


def read_lines(path: Path, longest: int) -> Iterator[bytes]:
    """Read a file line by line, each with its line end; the last one may lack it.

    A line longer than `longest` bytes comes cut off, without a line end, and is the last.

    Raises:
        DataError: a folder, a pipe or a device.
        OSError: the file is missing or cannot be read.
    """
    try:
        file = open_plain(path, follow_links=True)
    except NotAPlainFile as error:
        raise DataError(f"{path} is not a plain file.", "Name a plain file.") from error
    with file:
        while line := file.readline(longest):
            yield line
            if not line.endswith(b"\n"):
                return
