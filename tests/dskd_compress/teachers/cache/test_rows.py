"""Rows on disk: what was written is read, and nothing else ever is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dskd_compress.teachers.cache import rows as module
from dskd_compress.teachers.cache.rows import (
    CHECKSUMS,
    MANIFEST,
    ROWS,
    RowStore,
    count_row_bytes,
    lock_folder,
    open_rows,
)
from dskd_export.errors import DataError, EnvironmentProblem

ROOT = Path(__file__).resolve().parents[4]
ROW_COUNT, SHAPE = 40, (8, 3)


def opened(folder: Path) -> RowStore:
    with lock_folder(folder.parent):
        return open_rows(folder, ROW_COUNT, SHAPE, "float16", {"what": "test"})


def content(numbers: list[int] | range) -> np.ndarray:
    """A row whose value is its number: exact in float16."""
    return np.stack([np.full(SHAPE, number + 1, np.float16) for number in numbers])


def process(code: str, *arguments: str) -> subprocess.Popen[str]:
    prelude = (
        "import os, signal, sys, time\nimport numpy as np\nfrom pathlib import Path\n"
        "from dskd_compress.teachers.cache import rows\n"
        f"ROW_COUNT, SHAPE = {ROW_COUNT}, {SHAPE}\n"
        "def content(numbers):\n"
        "    return np.stack([np.full(SHAPE, number + 1, np.float16) for number in numbers])\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", prelude + code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "export")])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_is_written_is_read_and_survives(tmp_path: Path) -> None:
    store = opened(tmp_path / "cache")
    assert (len(store), store.shape, store.dtype, store.count_filled()) == (ROW_COUNT, SHAPE, np.float16, 0)
    numbers = np.array([3, 39, 0])
    assert store.read(numbers) is None
    assert not store.has_rows(numbers)
    store.write(numbers, content([3, 39, 0]))
    again = opened(tmp_path / "cache")
    values = again.read(np.array([0, 3]))
    assert values is not None
    assert np.array_equal(values, content([0, 3]))
    assert again.count_filled() == 3
    assert again.has_rows(numbers)
    assert again.read(np.array([0, 4])) is None  # one of them is missing
    assert json.loads((tmp_path / "cache" / MANIFEST).read_text()) == {"what": "test"}
    # Two arrays without pickled objects, and the room that was foretold.
    for name in (ROWS, CHECKSUMS):
        np.load(tmp_path / "cache" / name, allow_pickle=False)
    assert sum(
        np.load(tmp_path / "cache" / name).nbytes for name in (ROWS, CHECKSUMS)
    ) == ROW_COUNT * count_row_bytes(SHAPE, "float16")


def test_the_room_is_taken_at_once(tmp_path: Path) -> None:
    open_rows(tmp_path / "cache", 1000, (1024,), "float32", {})
    assert (tmp_path / "cache" / ROWS).stat().st_blocks * 512 >= 1000 * 1024 * 4


def test_a_changed_byte_is_a_missing_row(tmp_path: Path) -> None:
    store = opened(tmp_path / "cache")
    store.write(np.arange(3), content(range(3)))
    with (tmp_path / "cache" / ROWS).open("r+b") as file:
        file.seek(-ROW_COUNT * 48 + 48 + 5, os.SEEK_END)  # in row 1 of 48 bytes
        file.write(b"\x11")
    store = opened(tmp_path / "cache")
    assert store.read(np.array([1])) is None
    assert store.read(np.array([0, 2])) is not None
    store.write(np.array([1]), content([1]))
    assert store.read(np.arange(3)) is not None


def test_a_checksum_of_zero_is_no_missing_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.zlib, "crc32", lambda row: 0)
    store = opened(tmp_path / "cache")
    store.write(np.array([7]), content([7]))
    assert store.read(np.array([7])) is not None


@pytest.mark.parametrize("before", [False, True], ids=["first written", "written anew"])
def test_killed_between_a_row_and_its_checksum(before: bool, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    if before:
        opened(folder).write(np.arange(10), content([99] * 10))
    code = (
        "store = rows.open_rows(Path(sys.argv[1]), ROW_COUNT, SHAPE, 'float16', {})\n"
        "real, count = rows._checksum, [0]\n"
        "def killed(row):\n"
        "    count[0] += 1\n"
        "    if count[0] == 5:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(row)\n"
        "rows._checksum = killed\n"
        "store.write(np.arange(10), content(range(10)))\n"
    )
    writer = process(code, str(folder))
    writer.communicate(timeout=60)
    assert writer.returncode == -signal.SIGKILL
    store = opened(folder)
    whole = store.read(np.arange(4))
    assert whole is not None
    assert np.array_equal(whole, content(range(4)))
    # The row itself is there; without its checksum it does not count.
    assert np.array_equal(np.load(folder / ROWS)[4], content([4])[0])
    assert store.read(np.array([4])) is None
    rest = store.read(np.arange(5, 10))
    assert (rest is not None and bool((rest == 100).all())) if before else rest is None


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """Rows of a megabyte, so that the kill falls into one."""
    folder = tmp_path / "cache"
    code = (
        "store = rows.open_rows(Path(sys.argv[1]), 16, (1 << 18,), 'float32', {})\n"
        "for turn in range(10_000):\n"
        "    for number in range(16):\n"
        "        store.write(np.array([number]), np.full((1, 1 << 18), 100 * turn + number, np.float32))\n"
        "    print('written', flush=True)\n"
    )
    for wait_s in (0.02, 0.05):
        writer = process(code, str(folder))
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        time.sleep(wait_s)
        writer.kill()
        writer.communicate(timeout=60)
        store = RowStore(folder)
        assert store.count_filled() == 16
        counted = 0
        for number in range(16):
            values = store.read(np.array([number]))
            if values is not None:
                assert len(np.unique(values)) == 1
                assert int(values[0, 0]) % 100 == number
                counted += 1
        assert counted >= 15  # one row at most was being written


def test_two_processes_at_once(tmp_path: Path) -> None:
    """Both make the folder, both write every row, and both read only what is right meanwhile."""
    folder = tmp_path / "caches" / "cache"
    code = (
        "sys.stdin.readline()\n"
        "with rows.lock_folder(Path(sys.argv[1]).parent):\n"
        "    store = rows.open_rows(Path(sys.argv[1]), ROW_COUNT, SHAPE, 'float16', {'by': sys.argv[2]})\n"
        "order = np.random.default_rng(int(sys.argv[2]))\n"
        "read = 0\n"
        "for turn in range(200):\n"
        "    numbers = order.choice(ROW_COUNT, 8, replace=False)\n"
        "    found = store.read(numbers)\n"
        "    if found is not None:\n"
        "        assert np.array_equal(found, content(numbers)), numbers\n"
        "        read += 1\n"
        "    store.write(numbers, content(numbers))\n"
        "print(read)\n"
    )
    both = [process(code, str(folder), str(number)) for number in range(2)]
    for one in both:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    read = [int(one.communicate(timeout=60)[0]) for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert min(read) > 50
    store = opened(folder)
    values = store.read(np.arange(ROW_COUNT))
    assert values is not None
    assert np.array_equal(values, content(range(ROW_COUNT)))
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["cache"]


def test_killed_while_the_folder_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    code = (
        "rows._allocate = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with rows.lock_folder(Path(sys.argv[1]).parent):\n"
        "    rows.open_rows(Path(sys.argv[1]), ROW_COUNT, SHAPE, 'float16', {})\n"
    )
    writer = process(code, str(folder))
    writer.communicate(timeout=60)
    assert writer.returncode == -signal.SIGKILL
    assert not folder.exists()
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1  # what it had begun
    assert opened(folder).count_filled() == 0
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [folder]


def test_a_full_disk_is_said_when_the_folder_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(module.os, "posix_fallocate", full)
    with pytest.raises(EnvironmentProblem, match=os.strerror(28)):
        opened(tmp_path / "cache")
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("damage", ["cut off", "of another shape", "no array"])
def test_a_damaged_folder_is_refused(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    opened(folder)
    if damage == "cut off":
        os.truncate(folder / ROWS, 300)
    elif damage == "of another shape":
        np.save(folder / ROWS, np.zeros((3, 2), np.float16))
    else:
        (folder / CHECKSUMS).write_bytes(b"nothing that numpy wrote")
    with pytest.raises(DataError, match=r"/cache "):
        opened(folder)
    shutil.rmtree(folder)
    assert opened(folder).count_filled() == 0


def test_an_array_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    opened(tmp_path / "cache")
    np.save(tmp_path / "cache" / ROWS, np.array([object()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"/cache "):
        opened(tmp_path / "cache")


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    opened(tmp_path / "cache")
    (tmp_path / "cache" / ROWS).unlink()
    with pytest.raises(EnvironmentProblem, match=r"cache .*teacher\.cache\.folder"):
        opened(tmp_path / "cache")
