"""Read what a shared library needs, and for which GPUs it has kernels, without loading it.

Formats: System V ABI, chapters 4 and 5 (https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html), 64 bits,
little endian, as on x86-64 and aarch64. NVIDIA does not document its fat binaries; the fields read here
are those that `cuobjdump` prints, laid out as in https://github.com/RWTH-ACS/cricket (cpu/cpu-elf2.c).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<qQ")
_LOAD, _DYNAMIC_SEGMENT = 1, 2
_NEEDED, _STRINGS = 1, 5
# More than any library has: a file that claims more is damaged.
_MOST_SEGMENTS = 1_000
_MOST_ENTRIES = 10_000
_LONGEST_NAME = 4096

_FATBIN = struct.Struct("<IHHQ")
_FATBIN_MAGIC = struct.pack("<I", 0xBA55ED50)
_ENTRY = struct.Struct("<HHIQIIHHI")
_PTX, _CUBIN = 1, 2

Capability = tuple[int, int]


class NotElf(ValueError):
    """The file is no 64-bit little-endian shared library, or damaged."""


@dataclass(frozen=True)
class Kernels:
    """Compute capabilities that a library has kernels for.

    Attributes:
        cubin: compiled code.
        ptx: portable code, which the driver compiles for that GPU and every newer one.
    """

    cubin: frozenset[Capability]
    ptx: frozenset[Capability]


def read_needed(path: Path) -> tuple[str, ...]:
    """Read the names of the libraries that are loaded with a library.

    Raises:
        NotElf: it is no library, or damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file, _map(file.fileno(), path) as data:
        return _parse_needed(data, path)


def read_kernels(path: Path) -> Kernels:
    """Read the compute capabilities of a library's CUDA kernels.

    Raises:
        NotElf: the file is empty.
        OSError: it cannot be read.
    """
    with path.open("rb") as file, _map(file.fileno(), path) as data:
        found = set(_entries(data))
    return Kernels(
        cubin=frozenset(capability for kind, capability in found if kind == _CUBIN),
        ptx=frozenset(capability for kind, capability in found if kind == _PTX),
    )


def _map(descriptor: int, path: Path) -> mmap.mmap:
    try:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    except ValueError as error:  # an empty file
        raise NotElf(f"{path} is empty") from error


def _parse_needed(data: mmap.mmap, path: Path) -> tuple[str, ...]:
    try:
        identity, *_, first, _, _, _, size, count, _, _, _ = _unpack(_HEADER, data, 0)
        if identity[:6] != b"\x7fELF\x02\x01" or size != _SEGMENT.size:
            raise NotElf(f"{path} is no shared library of 64 bits, little endian")
        if count > _MOST_SEGMENTS:
            raise NotElf(f"{path} is a damaged shared library")
        segments = [_unpack(_SEGMENT, data, first + index * size) for index in range(count)]
        entries: list[tuple[int, int]] = []
        for kind, _, offset, _, _, length, _, _ in segments:
            if kind == _DYNAMIC_SEGMENT:
                for index in range(min(length // _DYNAMIC.size, _MOST_ENTRIES)):
                    tag, value = _unpack(_DYNAMIC, data, offset + index * _DYNAMIC.size)
                    if tag == 0 or len(entries) == _MOST_ENTRIES:
                        break
                    entries.append((tag, value))
        if not entries:
            return ()
        address = next(value for tag, value in entries if tag == _STRINGS)
        # An address in memory -> a place in the file, by the segment that it is loaded with.
        strings = next(
            offset + address - start
            for kind, _, offset, start, _, length, _, _ in segments
            if kind == _LOAD and start <= address < start + length
        )
    except (struct.error, StopIteration) as error:
        raise NotElf(f"{path} is a damaged shared library") from error

    return tuple(_name(data, strings + value, path) for tag, value in entries if tag == _NEEDED)


def _unpack(layout: struct.Struct, data: mmap.mmap, place: int) -> tuple[Any, ...]:
    """Unpack a structure at an offset from the file, which may be beyond any address.

    Raises:
        struct.error: the offset is outside of the file.
    """
    if place + layout.size > len(data):
        raise struct.error(f"byte {place:,} is outside of the file")
    return layout.unpack_from(data, place)


def _name(data: mmap.mmap, start: int, path: Path) -> str:
    end = data.find(b"\0", start, start + _LONGEST_NAME) if 0 <= start < len(data) else -1
    if end < 0:
        raise NotElf(f"{path} is a damaged shared library")
    return data[start:end].decode(errors="replace")


def _entries(data: mmap.mmap) -> Iterator[tuple[int, Capability]]:
    """Yield kind and compute capability of every entry of every fat binary."""
    place = data.find(_FATBIN_MAGIC)
    while place >= 0:
        following = place + len(_FATBIN_MAGIC)
        if place + _FATBIN.size <= len(data):
            _, version, header, size = _FATBIN.unpack_from(data, place)
            # The magic bytes may occur anywhere; followed by a version and a header size they start a fat binary.
            if version == 1 and header == _FATBIN.size and place + header + size <= len(data):
                yield from _pieces(data, place + header, place + header + size)
                following = place + header + size
        place = data.find(_FATBIN_MAGIC, following)


def _pieces(data: mmap.mmap, place: int, end: int) -> Iterator[tuple[int, Capability]]:
    while place + _ENTRY.size <= end:
        kind, _, header, size, _, _, _, _, architecture = _ENTRY.unpack_from(data, place)
        if kind not in (_PTX, _CUBIN) or header < _ENTRY.size:
            return
        yield kind, divmod(architecture, 10)
        place += header + size
