"""Read small files of the kernel, many times a second, and find the folders that hold them."""

from __future__ import annotations

import os
import re
from pathlib import Path

_MOST_BYTES = 4096  # a page: what an attribute of sysfs holds at most


def read_text(path: Path) -> str | None:
    """Read a small file's text without surrounding space and NULs; None if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().strip("\0").strip()
    except OSError:
        return None


def read_number(path: Path) -> float | None:
    """Read a file that holds one number; None if it cannot be read or holds something else."""
    return as_number(read_text(path))


def as_number(text: str | None) -> float | None:
    """Parse a number; None for any other text."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def find_paths(root: Path, pattern: str) -> list[Path]:
    """Find what a glob matches below `root`, hwmon10 after hwmon9, each target of links once."""
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
            OSError: it is missing or may not be read.
        """
        self.path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def number(self) -> float | None:
        """Read its value; None if the sensor is off or does not answer."""
        try:
            text = os.pread(self._file, _MOST_BYTES, 0).decode("ascii", "replace")
        except OSError:
            return None
        return as_number(text.strip())

    def close(self) -> None:
        """Close it; it cannot be read again."""
        os.close(self._file)


def open_attribute(path: Path) -> Attribute | None:
    """Open an attribute; None if it is missing or may not be read."""
    try:
        return Attribute(path)
    except OSError:
        return None
