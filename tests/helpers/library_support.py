"""Shared libraries of our own, byte by byte: what they need, and for which GPUs they hold kernels."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

_PAGE = 0x1000


def fat_binary(cubin: Sequence[int] = (), ptx: Sequence[int] = ()) -> bytes:
    """CUDA kernels for architectures like 86, as they lie in a library; their code is four bytes of nothing."""
    pieces = b"".join(
        struct.pack("<HHIQIIHHI", kind, 0x101, 64, 4, 0, 0, 0, 0, architecture).ljust(64, b"\0") + b"code"
        for kind, architectures in ((2, cubin), (1, ptx))
        for architecture in architectures
    )
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(pieces)) + pieces


def library_bytes(
    needed: Sequence[str] = (), *, soname: str = "", runpath: str = "", content: bytes = b"", machine: int = 62
) -> bytes:
    """An ELF file of 64 bits that the system's loader takes, without any code."""
    names = [*needed, *filter(None, (soname, runpath))]
    strings, places = b"\0", {}
    for name in names:
        places[name] = len(strings)
        strings += name.encode() + b"\0"
    tags = [(1, places[name]) for name in needed]
    tags += [(14, places[soname])] if soname else []
    tags += [(29, places[runpath])] if runpath else []
    # Header, segments, dynamic section, hash table of no symbols, one null symbol, strings, content.
    segments = 64
    dynamic = segments + 2 * 56
    size = 16 * (len(tags) + 6)
    hashes, symbols = dynamic + size, dynamic + size + 16
    text = symbols + 24
    tags += [(4, hashes), (5, text), (6, symbols), (10, len(strings)), (11, 24), (0, 0)]
    total = text + len(strings) + len(content)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 3, machine, 1, 0, segments, 0, 0, 64, 56, 2, 64, 0, 0
    )
    load = struct.pack("<IIQQQQQQ", 1, 6, 0, 0, 0, total, total, _PAGE)
    described = struct.pack("<IIQQQQQQ", 2, 6, dynamic, dynamic, dynamic, size, size, 8)
    return (
        header
        + load
        + described
        + b"".join(struct.pack("<qQ", *tag) for tag in tags)
        + struct.pack("<4I", 1, 1, 0, 0)
        + bytes(24)
        + strings
        + content
    )


def write_library(path: Path, needed: Sequence[str] = (), **facts: object) -> Path:
    """Write such a library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(library_bytes(needed, **facts))  # type: ignore[arg-type]
    return path
