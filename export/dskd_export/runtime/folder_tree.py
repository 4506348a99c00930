"""List a folder by kind: files, folders, dangling links, and what must never be opened."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from dskd_export.errors import DataError
from dskd_export.files.names import make_printable, shell_bytes

FILE = "file"
FOLDER = "folder"
DANGLING = "dangling link"
FIFO = "FIFO"
SOCKET = "socket"
DEVICE = "device"
SPARSE = "sparse file"  # in a tar: its bytes do not lie in one piece


class Entry(NamedTuple):
    """One name in a folder, and what it leads to: links are followed."""

    name: str
    kind: str


class Tree(Protocol):
    """Folders that can be listed, on a disk or in an archive. Paths are relative to its root, with `/`."""

    def entries(self, folder: str) -> list[Entry]:
        """List everything directly in a folder, sorted by name.

        Raises:
            DataError: the folder cannot be listed.
        """
        ...

    def identity(self, folder: str) -> Hashable:
        """Return a value that two paths share if they lead to the same folder."""
        ...

    def place(self, path: str) -> str:
        """Return the path as messages name it."""
        ...

    def target(self, path: str) -> str:
        """Return where a link points."""
        ...

    def rename_hint(self, path: str, name: str) -> str:
        """Return a hint on how to rename a folder."""
        ...


@dataclass(frozen=True)
class DiskTree:
    """A folder on a disk."""

    root: Path

    def entries(self, folder: str) -> list[Entry]:
        """List everything directly in a folder, sorted by name.

        Raises:
            DataError: the folder cannot be listed.
        """
        try:
            with os.scandir(self.root / folder) as found:
                return sorted(Entry(entry.name, _kind(entry)) for entry in found)
        except OSError as error:
            raise _unreadable(self.place(folder), error) from error

    def identity(self, folder: str) -> Hashable:
        """Return device and inode."""
        try:
            status = (self.root / folder).stat()
        except OSError as error:
            raise _unreadable(self.place(folder), error) from error
        return status.st_dev, status.st_ino

    def place(self, path: str) -> str:
        """Return the whole path."""
        return make_printable(str(self.root / path))

    def target(self, path: str) -> str:
        """Return where a link points."""
        return make_printable(str((self.root / path).readlink()))

    def rename_hint(self, path: str, name: str) -> str:
        """Return the command that renames it, in bytes that no locale changes."""
        old = self.root / path
        new = f"{shell_bytes(str(old.parent))}/{shlex.quote(name)}"
        return f"Rename it, for example: mv {shell_bytes(str(old))} {new}"


def kind_of(path: Path) -> str:
    """Classify what a path leads to without opening it; a link whose target cannot be reached is dangling."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # ValueError: a null character in the name
        return DANGLING
    if stat.S_ISREG(mode):
        return FILE
    if stat.S_ISDIR(mode):
        return FOLDER
    if stat.S_ISFIFO(mode):
        return FIFO
    return SOCKET if stat.S_ISSOCK(mode) else DEVICE


def _kind(entry: os.DirEntry[str]) -> str:
    # Most file systems give these two without another call per file.
    if entry.is_file(follow_symlinks=False):
        return FILE
    if entry.is_dir(follow_symlinks=False):
        return FOLDER
    return kind_of(Path(entry.path))


def _unreadable(place: str, error: OSError) -> DataError:
    return DataError(f"{place}: {error.strerror}.", "Make it readable for this user, or move it away.")
