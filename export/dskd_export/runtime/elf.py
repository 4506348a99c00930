"""What a shared library needs, and for which GPUs it holds kernels; read off the file, nothing is loaded.

Formats: System V ABI, chapters 4 and 5 (https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html), 64 bits,
little endian, as on x86-64 and aarch64. NVIDIA does not document its fat binaries; the fields that are read here
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
_NEEDED, _STRINGS, _SONAME, _RPATH, _RUNPATH = 1, 5, 14, 15, 29
# More than any library has; what claims more is damaged.
_MOST_SEGMENTS = 1_000
_MOST_ENTRIES = 10_000
_LONGEST_NAME = 4096

_FATBIN = struct.Struct("<IHHQ")
_FATBIN_MAGIC = struct.pack("<I", 0xBA55ED50)
_ENTRY = struct.Struct("<HHIQIIHHI")
_PTX, _CUBIN = 1, 2

Capability = tuple[int, int]


class NotElf(ValueError):
    """A file that is no shared library of 64 bits and little endian, or a damaged one."""


@dataclass(frozen=True)
class Dynamic:
    """What the loader is told by a library.

    Attributes:
        needed: names of the libraries that are loaded with it.
        soname: its own name; None: it has none.
        folders: where the loader looks first, as written: `$ORIGIN` is the library's own folder.
    """

    needed: tuple[str, ...]
    soname: str | None
    folders: tuple[str, ...]


@dataclass(frozen=True)
class Kernels:
    """For which compute capabilities a library holds kernels.

    Attributes:
        cubin: those that are compiled for.
        ptx: those whose portable code is in it, which the driver compiles for this GPU or any newer one.
    """

    cubin: frozenset[Capability]
    ptx: frozenset[Capability]


def read_dynamic(path: Path) -> Dynamic:
    """Read a library's dynamic section.

    Raises:
        NotElf: it is no library, or damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file, _mapped(file.fileno(), path) as data:
        return _dynamic(data, path)


def read_kernels(path: Path) -> Kernels:
    """Read the fat binaries of a library; none where it holds no CUDA kernels.

    Raises:
        NotElf: the file is empty.
        OSError: it cannot be read.
    """
    with path.open("rb") as file, _mapped(file.fileno(), path) as data:
        found = set(_entries(data))
    return Kernels(
        cubin=frozenset(capability for kind, capability in found if kind == _CUBIN),
        ptx=frozenset(capability for kind, capability in found if kind == _PTX),
    )


def _mapped(descriptor: int, path: Path) -> mmap.mmap:
    try:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    except ValueError as error:  # an empty file
        raise NotElf(f"{path} is empty") from error


def _dynamic(data: mmap.mmap, path: Path) -> Dynamic:
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
            return Dynamic((), None, ())
        address = next(value for tag, value in entries if tag == _STRINGS)
        # An address in memory -> a place in the file, by the segment that it is loaded with.
        strings = next(
            offset + address - start
            for kind, _, offset, start, _, length, _, _ in segments
            if kind == _LOAD and start <= address < start + length
        )
    except (struct.error, StopIteration) as error:
        raise NotElf(f"{path} is a damaged shared library") from error

    def names(*tags: int) -> list[str]:
        return [_name(data, strings + value, path) for tag, value in entries if tag in tags]

    # RUNPATH wins over RPATH where a library has both.
    folders = names(_RUNPATH) or names(_RPATH)
    return Dynamic(
        needed=tuple(names(_NEEDED)),
        soname=next(iter(names(_SONAME)), None),
        folders=tuple(folder for text in folders for folder in text.split(":") if folder),
    )


def _unpack(layout: struct.Struct, data: mmap.mmap, place: int) -> tuple[Any, ...]:
    """Read a structure where a file says that it lies, which may be beyond any address.

    Raises:
        struct.error: it lies outside of the file.
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
    """Kind and compute capability of every piece of every fat binary."""
    place = data.find(_FATBIN_MAGIC)
    while place >= 0:
        following = place + len(_FATBIN_MAGIC)
        if place + _FATBIN.size <= len(data):
            _, version, header, size = _FATBIN.unpack_from(data, place)
            # These four bytes may occur anywhere; with a version and a header's size behind them they are one.
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
