"""An array on disk whose rows come one by one, from several processes, and survive a kill at any moment.

    manifest.json   what the rows are, in words
    rows.npy        [rows, ...], memory-mapped
    checksums.npy   uint32 [rows]: crc32 of the row's bytes, written after them; 0 where there is no row

A row counts only where its checksum holds. So neither a process that is killed between the two writes,
nor two that write one row at once, nor a power cut after which the disk has one of the files and not the
other, leaves a row that is read as something it is not: such a row is missing, and is written anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dskd_export.errors import DataError, EnvironmentProblem
from dskd_export.files.atomic import atomic_folder
from dskd_export.files.folder_lock import NO_LOCKS
from dskd_export.files.npz import read_npy_header

MANIFEST, ROWS, CHECKSUMS = "manifest.json", "rows.npy", "checksums.npy"
_CHECKSUM_BYTES = 4


def bytes_per_row(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    """What one row takes on the disk, its checksum included."""
    return math.prod(shape) * np.dtype(dtype).itemsize + _CHECKSUM_BYTES


class RowStore:
    """Rows of one shape and type, each there or missing.

    Args:
        folder: what `open_rows` made.

    Raises:
        DataError: it is damaged.
        EnvironmentProblem: it cannot be read and written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.is_symlink():
            raise _damaged(folder)
        try:
            self._rows, self._checksums = _mapped(folder / ROWS), _mapped(folder / CHECKSUMS)
        except OSError as error:
            raise EnvironmentProblem(
                f"{folder} cannot be opened: {error.strerror or error}.",
                "Give yourself the right to read and write there, or choose another teacher.cache.folder.",
            ) from error
        except ValueError as error:
            raise _damaged(folder) from error
        if self._checksums.dtype != np.uint32 or self._checksums.shape != self._rows.shape[:1]:
            raise _damaged(folder)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return tuple(self._rows.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the rows on disk."""
        return self._rows.dtype

    def filled(self) -> int:
        """Rows that were written."""
        return int(np.count_nonzero(self._checksums))

    def written(self, numbers: NDArray[np.int64]) -> bool:
        """Whether all these rows were written; `read` looks whether they hold."""
        return bool(self._checksums[numbers].all())

    def read(self, numbers: NDArray[np.int64]) -> NDArray[Any] | None:
        """Rows by number [B] -> a copy [B, ...]; None where one of them is missing or does not hold."""
        expected = np.array(self._checksums[numbers])
        if not expected.all():
            return None
        values = np.array(self._rows[numbers])
        found = np.fromiter((_checksum(row) for row in values), np.uint32, len(values))
        return values if np.array_equal(found, expected) else None

    def write(self, numbers: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Write rows [B, ...] of the store's own type under their numbers [B]."""
        if values.dtype != self.dtype or values.shape != (len(numbers), *self.shape):
            raise AssertionError(
                f"{values.dtype}{list(values.shape)} is no {self.dtype}{[len(numbers), *self.shape]}"
            )
        for number, row in zip(numbers, np.ascontiguousarray(values), strict=True):
            self._rows[number] = row
            self._checksums[number] = _checksum(row)


def _mapped(path: Path) -> NDArray[Any]:
    """The array of a file.

    Raises:
        ValueError: it is not what numpy wrote, or not all of it.
    """
    if path.is_symlink():  # it is written to
        raise ValueError(f"{path} is a link")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        shape, fortran, dtype = read_npy_header(file)
        begin = file.tell()
    # Before it is mapped: numpy makes a file that was cut off longer, with a hole.
    if fortran or dtype.hasobject or begin + math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{path} has {size} bytes")
    return np.asarray(np.memmap(path, dtype, "r+", begin, shape))


def _checksum(row: NDArray[Any]) -> int:
    return zlib.crc32(row.data) or 1  # 0 says that there is no row


def _damaged(folder: Path) -> DataError:
    return DataError(f"{folder} is damaged.", "Delete the folder; it is filled again.")


def open_rows(
    folder: Path, rows: int, shape: tuple[int, ...], dtype: DTypeLike, manifest: Mapping[str, Any]
) -> RowStore:
    """Open a folder of rows; where there is none, make it, all rows missing. For one process at a time: `locked`.

    The disk is taken at once: a file with holes would kill the process that writes into it, by SIGBUS,
    on the day when the disk is full.

    Args:
        folder: named by a key of all that the rows depend on, so that what is there has the right content.
        rows: of the array.
        shape: of a row.
        dtype: of the array.
        manifest: written beside it, for people.

    Raises:
        DataError: what is there is damaged.
        EnvironmentProblem: the disk is full or cannot be written to.
    """
    if not (folder / MANIFEST).is_file():
        for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):  # of a process that was killed here
            shutil.rmtree(leftover, ignore_errors=True)
        with atomic_folder(folder) as new:
            _allocate(new / ROWS, (rows, *shape), dtype)
            _allocate(new / CHECKSUMS, (rows,), np.uint32)
            (new / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    store = RowStore(folder)
    if (len(store), store.shape, store.dtype) != (rows, shape, np.dtype(dtype)):
        raise _damaged(folder)
    return store


def _allocate(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """An array of zeros that has its room on the disk."""
    np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


@contextlib.contextmanager
def locked(place: Path) -> Iterator[None]:
    """Hold a folder, made where it is missing, alone. The system lets go of it when a process dies.

    Raises:
        EnvironmentProblem: it cannot be written to.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise EnvironmentProblem(
            f"{place} cannot be written to: {error.strerror}.", "Choose another teacher.cache.folder."
        ) from error
    with os.fdopen(descriptor, "rb+"):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
