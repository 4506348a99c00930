"""Read untrusted `.npz` files: arrays of plain numbers and text, never pickles, never larger than announced.

The size of every array is checked before its memory is taken: against the size of its member, and that against
what its compressed bytes can hold. Formats: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT (zip) and
https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html (npy).
"""

from __future__ import annotations

import lzma
import math
import os
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dskd_export.errors import DataError
from dskd_export.files.atomic import NotAPlainFile, open_plain

_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED  # what numpy writes
# A small file may unpack to this much, whatever its ratio; a larger one by this ratio. Photos reach about 1, masks
# and black images 100, a bomb 1,000.
_ALWAYS_TAKEN = 256 << 20
_MOST_RATIO = 200
_MOST_MEMBERS = 10_000
_ENCRYPTED = 0x1
_VERSIONS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class InvalidNpz(DataError):
    """A file that is no `.npz` of plain arrays, or a damaged one."""


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of a file by name.

    Raises:
        InvalidNpz: it is missing, damaged, encrypted or no plain file, or holds more than numbers and text.
    """
    try:
        with open_plain(path, follow_links=True) as file, zipfile.ZipFile(file) as archive:
            return _arrays(archive, os.fstat(file.fileno()).st_size, path)
    except NotAPlainFile as error:
        raise _invalid(path, "it is not a plain file") from error
    except OSError as error:
        raise _invalid(path, error.strerror or "it cannot be read") from error
    except (zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, struct.error) as error:
        raise _invalid(path, "it is damaged, or no .npz file") from error
    except (ValueError, OverflowError, RuntimeError, NotImplementedError, KeyError, IndexError) as error:
        # What zipfile and numpy raise where a header holds nonsense.
        raise _invalid(path, "one of its headers is damaged") from error


def _arrays(archive: zipfile.ZipFile, bytes_there: int, path: Path) -> dict[str, NDArray[Any]]:
    members = archive.infolist()
    if len(members) > _MOST_MEMBERS:
        raise _invalid(path, f"it holds {len(members):,} members; at most {_MOST_MEMBERS:,} are read")
    total = sum(member.file_size for member in members)
    if total > max(_ALWAYS_TAKEN, _MOST_RATIO * bytes_there):
        raise _invalid(path, f"its {bytes_there:,} bytes claim to unpack to {total:,}")
    arrays: dict[str, NDArray[Any]] = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        if member.flag_bits & _ENCRYPTED:
            raise _invalid(path, "it is encrypted")
        if member.compress_type not in (_STORED, _DEFLATED):
            raise _invalid(path, "it is compressed in a way that numpy does not write")
        if name == member.filename:
            raise _invalid(path, "it holds something else than arrays")
        if name in arrays:
            raise _invalid(path, "it holds two arrays of one name")
        with archive.open(member) as stream:
            arrays[name] = _array(stream, member.file_size, path)
    return arrays


def read_npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of a `.npy` file: shape, whether the order is Fortran's, and type.

    Raises:
        ValueError: it is none, or damaged.
    """
    try:
        version = np.lib.format.read_magic(stream)
        with warnings.catch_warnings():  # of headers that Python 2 wrote
            warnings.simplefilter("ignore")
            shape, fortran, dtype = _VERSIONS[version](stream)
    except Exception as error:  # numpy's parser raises TokenError, MemoryError, KeyError, ... as well
        raise ValueError("a damaged header") from error
    if any(length < 0 for length in shape):
        raise ValueError("a negative length")
    return shape, fortran, dtype


def _array(stream: IO[bytes], size: int, path: Path) -> NDArray[Any]:
    """One array; its header must announce exactly the bytes that follow it."""
    try:
        shape, fortran, dtype = read_npy_header(stream)
    except ValueError as error:
        raise _invalid(path, "the header of an array is damaged") from error
    if dtype.hasobject or dtype.kind not in "biufSU":
        raise InvalidNpz(
            f"{path} cannot be read: it is not an .npz of plain arrays.",
            "Python objects are refused because loading them could run code: save numbers and plain strings.",
        )
    if math.prod(shape) * dtype.itemsize != size - stream.tell():
        raise _invalid(path, "an array has another size than its header says")
    data = bytearray(math.prod(shape) * dtype.itemsize)
    view, position = memoryview(data), 0
    while position < len(data) and (count := stream.readinto(view[position : position + (1 << 20)])):  # type: ignore[attr-defined]
        position += count
    if position < len(data) or stream.read(1):
        raise _invalid(path, "an array is cut off")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _invalid(path: Path, why: str) -> InvalidNpz:
    return InvalidNpz(f"{path} cannot be read: {why}.", "Write it again with numpy.savez.")
