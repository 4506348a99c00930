"""Small files of the kernel that are read many times a second, and the folders they lie in."""

from __future__ import annotations

import os
import re
from pathlib import Path

_MOST_BYTES = 4096  # a page: what an attribute of sysfs holds at most


def read_text(path: Path) -> str | None:
    """A small file's text without surrounding space and NULs; None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().strip("\0").strip()
    except OSError:
        return None


def read_number(path: Path) -> float | None:
    """A file that holds one number; None where it cannot be read or holds something else."""
    return as_number(read_text(path))


def as_number(text: str | None) -> float | None:
    """The number that a text is, else None."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def find_paths(root: Path, pattern: str) -> list[Path]:
    """What a glob finds below `root`, hwmon10 after hwmon9, each thing once however many links lead to it."""
    found: dict[Path, Path] = {}
    for path in sorted(root.glob(pattern), key=lambda path: _natural(str(path))):
        found.setdefault(path.resolve(), path)
    return list(found.values())


def _natural(text: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", text)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


class Attribute:
    """One attribute that stays open: a read is a single system call, during which other threads run."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            OSError: it is not there or may not be read.
        """
        self.path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def number(self) -> float | None:
        """Its value now; None where the sensor is off or does not answer."""
        try:
            text = os.pread(self._file, _MOST_BYTES, 0).decode("ascii", "replace")
        except OSError:
            return None
        return as_number(text.strip())

    def close(self) -> None:
        """Close it; it cannot be read again."""
        os.close(self._file)


def open_attribute(path: Path) -> Attribute | None:
    """An attribute, or None where it is not there or may not be read."""
    try:
        return Attribute(path)
    except OSError:
        return None
