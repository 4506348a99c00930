"""Write files and folders atomically; compute their sha256."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from dskd_export.errors import EnvironmentProblem
from dskd_export.files.system_faults import SYSTEM_FAULTS, WRITING_FAULTS

_CHUNK = 1 << 20

# What a temporary file or folder is called: see `temporary_path`.
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp(\.[^.]+)?")

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
    """Write a file atomically; make missing parent folders. Text becomes UTF-8.

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
    temporary = temporary_path(path, path.suffix)
    try:
        with _clear_errors(path):
            _refuse_special(path)
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
    temporary = temporary_path(path)
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
        _remove(temporary)


def _put_in_place(new: Path, path: Path) -> None:
    if not path.exists():
        new.rename(path)
    elif not _exchange(new, path):
        old = temporary_path(path)
        path.rename(old)
        try:
            new.rename(path)
        except OSError:
            old.rename(path)
            raise
        _remove(old)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two names in one step; False where the C library or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    done: int = renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE)
    return done == 0


def temporary_path(path: Path, suffix: str = "") -> Path:
    """A hidden, unused name in the same folder, so that renaming never crosses a file system."""
    return path.with_name(f".{path.name.removesuffix(suffix)}.{secrets.token_hex(4)}.tmp{suffix}")


def remove_leftovers(folder: Path, names: Collection[str] | None = None) -> None:
    """Remove temporary files and folders whose writer was killed, from a folder that no other process writes to.

    Args:
        folder: their place; it need not exist. Links are not followed.
        names: of the files and folders that were to be written; None: any.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in folder.iterdir():
        name = path.name
        while found := _TEMPORARY.fullmatch(name):
            name = found[1] + (found[2] or "")
        if name != path.name and (names is None or name in names):
            _remove(path)


def open_log(path: Path, *, append: bool) -> TextIO:
    """Open a text file of a fixed name for writing; a link of that name is not followed.

    Args:
        path: the file.
        append: add to what is there, which must not be a link; else the file, or the link, is replaced.

    Raises:
        EnvironmentProblem: the place cannot be written to, or a link has the file's name.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_APPEND if append else os.O_EXCL)
    with _clear_errors(path):
        if not append:
            path.unlink(missing_ok=True)
        return os.fdopen(os.open(path, flags, 0o666), "a" if append else "w", encoding="utf-8")


def append_whole(path: Path, text: str) -> None:
    """Append text atomically; on failure a missing file stays missing.

    Raises:
        EnvironmentProblem: the disk is full, or the place cannot be written to.
    """
    with _clear_errors(path):
        new = not path.exists()
        with path.open("ab", buffering=0) as file:
            facts = os.fstat(file.fileno())
            before = facts.st_size if stat.S_ISREG(facts.st_mode) else None  # None: a pipe or a device
            try:
                data = memoryview(text.encode("utf-8"))
                while data:
                    data = data[file.write(data) :]
                if before is not None:
                    os.fsync(file.fileno())
            except OSError:
                if before is not None:
                    file.truncate(before)
                if new:
                    path.unlink()
                raise


def _refuse_special(path: Path) -> None:
    """A pipe or a device is not replaced by a file."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise EnvironmentProblem(f"{path} is a pipe or a device.", "Name a file.")


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder, as far as that can be done."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _sync(path: Path) -> None:
    """Bring a file or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder; the rename itself has happened.
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS) or not path.is_dir():
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
        # Without a place it may be the caller's own: then only what is never our fault counts.
        faults = SYSTEM_FAULTS if within is not None and named is None else WRITING_FAULTS
        if error.errno is None or error.errno not in faults or not ours:
            raise
        hint = faults[error.errno]
        raise EnvironmentProblem(f"{path} cannot be written: {error.strerror}.", hint) from error
