"""Files that are either the old or the new one, never half of each; and their sha256."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dskd_export.errors import EnvironmentProblem

_CHUNK = 1 << 20

# What a person can change, by the reason that the system gives. Other errors are not the machine's fault.
_HINTS = {
    errno.ENOSPC: "Free space on that disk, or choose a folder on another one.",
    errno.EDQUOT: "Free space within your quota, or choose a folder on another disk.",
    errno.EACCES: "Give yourself the right to write there, or choose another folder.",
    errno.EPERM: "Give yourself the right to write there, or choose another folder.",
    errno.EROFS: "Choose a folder on a disk that can be written to.",
    errno.ENOTDIR: "A part of this path is a file, not a folder: choose another folder.",
    errno.EEXIST: "A part of this path is a file, not a folder: choose another folder.",
    errno.EISDIR: "There is a folder of that name: move it away, or choose another folder.",
    errno.ENAMETOOLONG: "Choose a shorter path.",
}

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # linux/fs.h


class NotAPlainFile(OSError):
    """A link, a folder, a pipe or a device, where a file was expected."""


def open_plain(path: Path, *, follow_links: bool = False) -> BinaryIO:
    """Open a plain file for reading, and nothing else: no pipe that would wait, no device that would act.

    Args:
        path: the file.
        follow_links: whether a link to a plain file will do.

    Raises:
        NotAPlainFile: it is none.
        OSError: it is missing or cannot be read.
    """
    # Looked at before it is opened, as opening some devices has effects; and again after, as it may be another.
    if not stat.S_ISREG(path.stat(follow_symlinks=follow_links).st_mode):
        raise NotAPlainFile(errno.EINVAL, "not a plain file", str(path))
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise NotAPlainFile(errno.EINVAL, "not a plain file", str(path))
    return file


def sha256_bytes(data: bytes | bytearray | memoryview) -> str:
    """sha256 as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """sha256 of a file's content, read in pieces, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file, or nothing; missing parent folders are made. Text becomes UTF-8.

    Raises:
        EnvironmentProblem: the disk is full, or the place cannot be written to.
    """
    content = data.encode("utf-8") if isinstance(data, str) else data
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder to write to; on success it takes `path`'s place.

    For libraries that open files themselves. The temporary name keeps the suffix. If the body
    raises, the temporary file is removed and `path` is as it was.

    Raises:
        EnvironmentProblem: the disk is full, or the place cannot be written to.
    """
    temporary = _sibling(path, path.suffix)
    try:
        with _clear_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Made here so that a folder without write permission is known before any work is done.
            temporary.open("xb").close()
        with _clear_errors(path, within=temporary):
            yield temporary
        with _clear_errors(path):
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty sibling folder to fill; on success it takes the whole place of `path`.

    If the body raises, the sibling is removed and `path` is as it was. Where the file system can
    exchange two names at once there is no moment without a folder at `path`; elsewhere the old
    one is renamed away first, and back if the second rename fails.

    Raises:
        EnvironmentProblem: the disk is full, or the place cannot be written to.
    """
    temporary = _sibling(path)
    try:
        with _clear_errors(path):
            if path.exists() and not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
        with _clear_errors(path, within=temporary):
            yield temporary
        with _clear_errors(path):
            for entry in [*temporary.rglob("*"), temporary]:
                _sync(entry)
            _put_in_place(temporary, path)
            _sync(path.parent)
    finally:
        # What is left at this name is the unfinished folder or, after an exchange, the old one.
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(new: Path, path: Path) -> None:
    if not path.exists():
        new.rename(path)
    elif not _exchange(new, path):
        old = _sibling(path)
        path.rename(old)
        try:
            new.rename(path)
        except OSError:
            old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two names in one step; False where the C library or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    done: int = renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE)
    return done == 0


def _sibling(path: Path, suffix: str = "") -> Path:
    """A hidden, unused name in the same folder, so that renaming never crosses a file system."""
    return path.with_name(f".{path.name.removesuffix(suffix)}.{secrets.token_hex(4)}.tmp{suffix}")


def _sync(path: Path) -> None:
    """Bring a file or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder; the rename itself has happened.
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _clear_errors(path: Path, within: Path | None = None) -> Iterator[None]:
    """Say in one line why a file could not be written and what to change.

    Args:
        path: what is being written.
        within: take only errors about this place or without a place; others are the caller's own.
    """
    try:
        yield
    except OSError as error:
        named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else None
        ours = within is None or named is None or within in (named, *named.parents)
        if error.errno not in _HINTS or not ours:
            raise
        raise EnvironmentProblem(f"{path} cannot be written: {error.strerror}.", _HINTS[error.errno]) from error
