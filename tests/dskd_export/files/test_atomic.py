from __future__ import annotations

import errno
import hashlib
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dskd_export.errors import EnvironmentProblem
from dskd_export.files import atomic as files
from dskd_export.files.atomic import (
    append_whole,
    atomic_folder,
    atomic_path,
    open_log,
    sha256_bytes,
    sha256_file,
    write_atomic,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, (1 << 20) + 1, 3 << 20])
def test_hashes_are_hashlibs(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert sha256_file(tmp_path / "file") == sha256_bytes(data) == sha256_bytes(memoryview(data)) == expected


def test_writes_bytes_and_text_and_makes_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.json"
    write_atomic(path, "größer\n")
    assert path.read_bytes() == "größer\n".encode()
    write_atomic(path, b"\x00new")
    assert path.read_bytes() == b"\x00new"
    assert names(path.parent) == ["file.json"]


def test_file_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_reader_of_the_old_file_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with path.open("rb") as old:
        write_atomic(path, b"new")
        assert old.read() == b"old"


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, OSError])
def test_failure_leaves_the_old_file_and_no_temporary(tmp_path: Path, kind: type[BaseException]) -> None:
    path = tmp_path / "weights.npz"
    write_atomic(path, b"old")
    with pytest.raises(kind), atomic_path(path) as temporary:  # noqa: PT012
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".npz"
        temporary.write_bytes(b"half")
        raise kind
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["weights.npz"]


def fail_with(code: int):
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_a_full_or_closed_disk_is_named(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    monkeypatch.setattr(Path, "write_bytes", fail_with(code))
    with pytest.raises(EnvironmentProblem) as caught:
        write_atomic(path, b"new")
    assert str(path) in caught.value.message
    assert os.strerror(code) in caught.value.message
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_really_full_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def to_full(_: Path, data: bytes) -> None:
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(data)

    monkeypatch.setattr(Path, "write_bytes", to_full)
    with pytest.raises(EnvironmentProblem, match="No space"):
        write_atomic(tmp_path / "file", b"data")
    assert names(tmp_path) == []


def test_other_errors_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_bytes", fail_with(errno.EBADF))
    with pytest.raises(OSError, match="Bad file descriptor"):
        write_atomic(tmp_path / "file", b"data")


def test_a_caller_that_cannot_read_its_own_source_hears_so(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="source"), atomic_path(tmp_path / "file"):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "source"))


def test_a_library_that_fills_the_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="No space"), atomic_path(tmp_path / "file") as temporary:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary))


@pytest.mark.parametrize("name", ["file/below", "file/deep/below"])
def test_a_file_where_a_folder_should_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EnvironmentProblem, match="not a folder"):
        write_atomic(tmp_path / name, b"")


def test_a_folder_where_the_file_should_be(tmp_path: Path) -> None:
    (tmp_path / "name" / "full").mkdir(parents=True)
    with pytest.raises(EnvironmentProblem, match="folder of that name"):
        write_atomic(tmp_path / "name", b"")
    assert names(tmp_path) == ["name"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(EnvironmentProblem, match="Permission denied"):
        write_atomic(tmp_path / "file", b"")
    tmp_path.chmod(0o700)


def test_sync_of_a_folder_may_be_unknown_to_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomic(tmp_path / "file", b"data")
    assert (tmp_path / "file").read_bytes() == b"data"


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
class TestFolder:
    @pytest.fixture(autouse=True)
    def _how(self, exchange: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        if not exchange:
            monkeypatch.setattr(files, "_exchange", lambda *_: False)

    def test_replaces_the_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "bundle"
        for content in ("one", "two"):
            with atomic_folder(path) as temporary:
                (temporary / content).write_text(content)
            assert names(path) == [content]
            assert names(tmp_path) == ["bundle"]

    def test_failure_leaves_the_old(self, tmp_path: Path) -> None:
        path = tmp_path / "bundle"
        with atomic_folder(path) as temporary:
            (temporary / "old").write_text("old")
        with pytest.raises(KeyboardInterrupt), atomic_folder(path) as temporary:  # noqa: PT012
            (temporary / "new").write_text("half")
            raise KeyboardInterrupt
        assert names(path) == ["old"]
        assert names(tmp_path) == ["bundle"]

    def test_a_file_in_its_place_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "bundle").write_text("mine")
        with pytest.raises(EnvironmentProblem, match="not a folder"), atomic_folder(tmp_path / "bundle"):
            pass
        assert (tmp_path / "bundle").read_text() == "mine"
        assert names(tmp_path) == ["bundle"]


def test_second_rename_fails_and_the_old_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bundle"
    with atomic_folder(path) as temporary:
        (temporary / "old").write_text("old")
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if target == path and (self / "new").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(EnvironmentProblem, match="No space"), atomic_folder(path) as temporary:
        (temporary / "new").write_text("new")
    assert names(path) == ["old"]
    assert names(tmp_path) == ["bundle"]


# --- what a file system may answer, and links and devices in the place of a file

DISK = [
    "EIO",
    "ESTALE",
    "EXDEV",
    "EDQUOT",
    "EROFS",
    "EFBIG",
    "ENOTCONN",
    "ETIMEDOUT",
    "EBUSY",
    "EUCLEAN",
    "ENOENT",
]


@pytest.mark.parametrize("name", DISK)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_fault_of_the_disk_at_the_end_is_the_machines(
    name: str, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomic(tmp_path / "file", b"old")
    monkeypatch.setattr(os if call == "fsync" else Path, call, fail_with(getattr(errno, name)))
    with pytest.raises(EnvironmentProblem) as caught:
        write_atomic(tmp_path / "file", b"new")
    assert caught.value.hint
    assert str(tmp_path / "file") in caught.value.message
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["EIO", "ESTALE", "EXDEV", "ENOTEMPTY"])
def test_a_folder_that_cannot_be_renamed_stays_as_it_was(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with atomic_folder(tmp_path / "bundle") as new:
        (new / "file").write_bytes(b"old")
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", fail_with(getattr(errno, name)))
    with pytest.raises(EnvironmentProblem), atomic_folder(tmp_path / "bundle") as new:
        (new / "file").write_bytes(b"new")
    assert (tmp_path / "bundle/file").read_bytes() == b"old"
    assert names(tmp_path) == ["bundle"]


def test_a_link_in_the_place_of_a_folder_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (victim := tmp_path / "victim").mkdir()
    (victim / "file").write_bytes(b"mine")
    (tmp_path / "bundle").symlink_to(victim)
    with atomic_folder(tmp_path / "bundle") as new:
        (new / "file").write_bytes(b"new")
    assert (victim / "file").read_bytes() == b"mine"
    assert (tmp_path / "bundle/file").read_bytes() == b"new"
    assert names(tmp_path) == ["bundle", "victim"]


@pytest.mark.parametrize("append", [True, False])
def test_a_log_is_not_written_through_a_link(append: bool, tmp_path: Path) -> None:
    (victim := tmp_path / "victim").write_text("mine")
    (log := tmp_path / "log").symlink_to(victim)
    if append:
        with pytest.raises(EnvironmentProblem, match="cannot be written"):
            open_log(log, append=True)
    else:
        with open_log(log, append=False) as file:
            file.write("new")
        assert log.read_text() == "new"
    assert victim.read_text() == "mine"


def test_a_pipe_or_a_device_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(EnvironmentProblem, match="pipe or a device"):
        write_atomic(tmp_path / "pipe", b"data")
    assert names(tmp_path) == ["pipe"]


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """The limit of `ulimit -f`, which the kernel enforces in the middle of a write, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("before", [None, "# An earlier step\n"])
def test_what_does_not_fit_is_not_added_at_all(before: str | None, tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    if before is not None:
        path.write_text(before)
    with no_file_above(40), pytest.raises(EnvironmentProblem, match="File too large"):
        append_whole(path, "| row |\n" * 20)
    assert (path.read_text() if path.exists() else None) == before
    append_whole(path, "fits\n")
    assert path.read_text() == (before or "") + "fits\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_device_takes_no_summary() -> None:
    with pytest.raises(EnvironmentProblem, match="No space left"):
        append_whole(Path("/dev/full"), "text")
