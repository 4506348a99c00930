"""One process at a time writes into a folder of results: a lock that the kernel releases when the process dies.

The lock is a file in the folder, which says who holds it. It is there only while it is held; one that a killed
process has left is taken over.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import platform
import shlex
import stat
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dskd_export.errors import EnvironmentProblem
from dskd_export.files.atomic import remove_leftovers

LOCK = ".dskd-compress.lock"

# Some network mounts, some drivers in user space have no locks.
NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""What `flock` answers on them."""
_HELD = {errno.EWOULDBLOCK, errno.EACCES}
_TRIES, _PAUSE_S = 50, 0.02
_MOST_SIGNS, _MOST_BYTES = 500, 8192  # of the command; of the whole file


@dataclass(frozen=True)
class Holder:
    """The process that writes to a folder, as it has signed the lock."""

    pid: int
    host: str
    command: str
    started: str

    def __str__(self) -> str:
        place = "" if self.host == platform.node() else f" on {self.host}"
        return f"process {self.pid}{place} ({self.command})"


@dataclass
class _Lock:
    descriptor: int
    thread: int
    taken: bool = False


# Of this process, by the path of the lock.
_held: dict[str, _Lock] = {}


def _let_go_in_child() -> None:
    """A forked process, such as a data-loading worker, must not keep the lock when this one dies.

    Closing the child's copy leaves the lock with the parent; unlocking it would take it away from both.
    """
    for lock in _held.values():
        with contextlib.suppress(OSError):
            os.close(lock.descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


@contextlib.contextmanager
def hold_folder(
    folder: Path, warn: Callable[[str], None], *, names: Collection[str] = (), folders: Sequence[str] = ()
) -> Iterator[None]:
    """Hold a folder alone while the body writes into it; what a killed writer has left is removed first.

    The thread that holds it may take it again. Forked and started processes do not inherit it.

    Args:
        folder: made where it is missing, and removed again where nothing was written.
        warn: called where the file system has no locks; the body then runs without one.
        names: files and folders that are written into it, whose leftovers are removed.
        folders: patterns of the folders within it that belong to the writer: no link may have their name.

    Raises:
        EnvironmentProblem: another process holds it, it cannot be written to, or one of `folders` is a link.
    """
    key = str(Path(os.path.realpath(folder)) / LOCK)
    if key in _held:
        if _held[key].thread != threading.get_ident():
            raise _in_use(folder, "another thread of this process writes to it")
        yield
        return
    try:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
    except OSError as error:
        raise _cannot_write(folder, error) from error
    try:
        _take(folder, key, warn)
        refuse_links(folder, folders)
        remove_leftovers(folder, names)
        for pattern in folders:
            for path in folder.glob(pattern):
                remove_leftovers(path)
        yield
    finally:
        _release(key)
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


def find_holder(folder: Path) -> Holder | None:
    """Find the process that writes to a folder; None: the file system shows none.

    It neither writes nor waits.
    """
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        holder = _read(descriptor)
        # What a killed process has left; without a look at the lock, which a new writer might take just now.
        if holder is None or (holder.host == platform.node() and not _is_alive(holder.pid)):
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return holder if error.errno in _HELD | NO_LOCKS else None
        return None  # it was left by another machine, or its number belongs to another process now
    finally:
        os.close(descriptor)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def refuse_links(folder: Path, patterns: Sequence[str]) -> None:
    """Refuse a link in the place of a folder that is written to: what is handed in must not lead elsewhere.

    Raises:
        EnvironmentProblem: names the link.
    """
    for path in (path for pattern in patterns for path in folder.glob(pattern) if path.is_symlink()):
        raise EnvironmentProblem(
            f"{path} is a link: links are not followed when writing.",
            f"Remove the link: rm {shlex.quote(str(path))}",
        )


def _take(folder: Path, key: str, warn: Callable[[str], None]) -> None:
    """Take the lock, or raise at once."""
    holder: str | None = None
    opened = False
    for _ in range(_TRIES):
        descriptor = _open(folder)
        if descriptor is None:
            continue
        opened = True
        lock = _held[key] = _Lock(descriptor, threading.get_ident())
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS:
                lock.taken = True
                warn(f"{folder} is on a file system without locks: run one command at a time in it.")
                _sign(descriptor)
                return
            if error.errno not in _HELD:
                _close(key)
                raise _cannot_write(folder, error) from error
            signed = _read(descriptor)
            _close(key)
            if signed is not None:
                holder = f"{signed} has been writing to it since {signed.started}"
                break
            time.sleep(_PAUSE_S)  # its holder has not signed it yet, or has just let go
            continue
        if _is_at(descriptor, key):
            lock.taken = True
            _sign(descriptor)
            return
        _close(key)  # the one who held it has removed it meanwhile
    if not opened:  # nobody removes it each time: the file system, such as /proc, makes none
        raise _cannot_write(folder, OSError(errno.ENOENT, "no folder can be made there"))
    raise _in_use(folder, holder or "another process writes to it")


def _open(folder: Path) -> int | None:
    """The lock file, which may be another's; None where the folder was removed meanwhile."""
    path = folder / LOCK
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, flags, 0o666)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _cannot_write(folder, error) from error
    else:
        # Another name of the same file would be written to as well.
        facts = os.fstat(descriptor)
        if stat.S_ISREG(facts.st_mode) and facts.st_nlink <= 1:
            return descriptor
        os.close(descriptor)
    raise EnvironmentProblem(
        f"{path} is a link or not a plain file.", f"Remove it: rm -r {shlex.quote(str(path))}"
    )


def _sign(descriptor: int) -> None:
    """Write who holds the lock."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    command = shlex.join(["dskd-compress", *sys.argv[1:]])[:_MOST_SIGNS]
    content = {"pid": os.getpid(), "host": platform.node(), "command": command, "started": now}
    # Without room on the disk it is held all the same; what is to be written says what is wrong.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(content).encode("ascii"), 0)


def _read(descriptor: int) -> Holder | None:
    """Read who has signed a lock; None where it is unsigned."""
    try:
        content = json.loads(os.pread(descriptor, _MOST_BYTES, 0))
        host, command, started = (str(content[name]) for name in ("host", "command", "started"))
        pid = int(content["pid"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return Holder(pid, host, command, started) if pid > 0 else None


def _is_at(descriptor: int, key: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), Path(key).lstat())
    except OSError:
        return False


def _release(key: str) -> None:
    """Remove the file while it is held, so that no other process can hold its name; then release it."""
    lock = _held.get(key)
    if lock is None:  # a forked process, or it was never held
        return
    if lock.taken and _is_at(lock.descriptor, key):
        with contextlib.suppress(OSError):
            Path(key).unlink()
    _close(key)


def _close(key: str) -> None:
    os.close(_held.pop(key).descriptor)


def _in_use(folder: Path, why: str) -> EnvironmentProblem:
    return EnvironmentProblem(f"{folder} is in use: {why}.", "Wait for it to end, or choose another folder.")


def _cannot_write(folder: Path, error: OSError) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"{folder} cannot be written to: {error.strerror}.", "Choose another folder with --out."
    )
