"""An array on disk that several processes fill row by row, and that survives a kill at any moment.

    manifest.json   what the rows are, in words
    rows.npy        [rows, ...], memory-mapped
    checksums.npy   uint32 [rows]: crc32 of the row's bytes, written after them; 0 where there is no row

A row counts only if its checksum matches. A row that was half written counts as missing and is written again:
after a kill between the two writes, two writers of one row at once, or a power cut that loses one of the files.
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


def count_row_bytes(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    """Count the bytes of one row on the disk, its checksum included."""
    return math.prod(shape) * np.dtype(dtype).itemsize + _CHECKSUM_BYTES


class RowStore:
    """Rows of one shape and type; each is written or missing.

    Args:
        folder: made by `open_rows`.

    Raises:
        DataError: it is damaged.
        EnvironmentProblem: it cannot be read and written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.is_symlink():
            raise _damaged_error(folder)
        try:
            self._rows, self._checksums = _map_array(folder / ROWS), _map_array(folder / CHECKSUMS)
        except OSError as error:
            raise EnvironmentProblem(
                f"{folder} cannot be opened: {error.strerror or error}.",
                "Make it readable and writable, or set teacher.cache.folder to another folder.",
            ) from error
        except ValueError as error:
            raise _damaged_error(folder) from error
        if self._checksums.dtype != np.uint32 or self._checksums.shape != self._rows.shape[:1]:
            raise _damaged_error(folder)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return tuple(self._rows.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the rows on disk."""
        return self._rows.dtype

    def count_filled(self) -> int:
        """Count the rows that were written."""
        return int(np.count_nonzero(self._checksums))

    def has_rows(self, numbers: NDArray[np.int64]) -> bool:
        """Whether all these rows were written; `read` verifies their checksums."""
        return bool(self._checksums[numbers].all())

    def read(self, numbers: NDArray[np.int64]) -> NDArray[Any] | None:
        """Read rows by number [B] into a copy [B, ...]; None if one of them is missing or damaged."""
        expected = np.array(self._checksums[numbers])
        if not expected.all():
            return None
        values = np.array(self._rows[numbers])
        found = np.fromiter((_checksum(row) for row in values), np.uint32, len(values))
        return values if np.array_equal(found, expected) else None

    def write(self, numbers: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Write rows [B, ...] of the type of the store under their numbers [B]."""
        if values.dtype != self.dtype or values.shape != (len(numbers), *self.shape):
            raise AssertionError(
                f"{values.dtype}{list(values.shape)} is no {self.dtype}{[len(numbers), *self.shape]}"
            )
        for number, row in zip(numbers, np.ascontiguousarray(values), strict=True):
            self._rows[number] = row
            self._checksums[number] = _checksum(row)


def _map_array(path: Path) -> NDArray[Any]:
    """Map the array of a file; ValueError: no array of numpy, or not all of it."""
    if path.is_symlink():  # the target would be written to
        raise ValueError(f"{path} is a link")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        shape, fortran, dtype = read_npy_header(file)
        begin = file.tell()
    # Checked before mapping: numpy extends a truncated file with a hole.
    if fortran or dtype.hasobject or begin + math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{path} has {size} bytes")
    return np.asarray(np.memmap(path, dtype, "r+", begin, shape))


def _checksum(row: NDArray[Any]) -> int:
    return zlib.crc32(row.data) or 1  # 0 marks a missing row


def _damaged_error(folder: Path) -> DataError:
    return DataError(f"{folder} is damaged.", "Delete the folder; it is filled again.")


def open_rows(
    folder: Path, rows: int, shape: tuple[int, ...], dtype: DTypeLike, manifest: Mapping[str, Any]
) -> RowStore:
    """Open a folder of rows; a missing folder is made, all rows missing. One process at a time: `lock_folder`.

    The disk space is allocated at once: on a full disk, a write into a hole of a file ends the process by SIGBUS.

    Args:
        folder: named by a key of all that the rows depend on.

    Raises:
        DataError: the folder is damaged.
        EnvironmentProblem: the disk is full or not writable.
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
        raise _damaged_error(folder)
    return store


def _allocate(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Write an array of zeros whose disk space is allocated."""
    np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


@contextlib.contextmanager
def lock_folder(place: Path) -> Iterator[None]:
    """Lock a folder; a missing one is made. The system releases the lock when the process dies.

    Raises:
        EnvironmentProblem: the folder is not writable.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise EnvironmentProblem(
            f"{place} cannot be written to: {error.strerror}.", "Set teacher.cache.folder to another folder."
        ) from error
    with os.fdopen(descriptor, "rb+"):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
