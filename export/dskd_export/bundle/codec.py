"""Compression of a packed bundle: gzip, which every Python has, or Zstandard.

Both formats have room for a note that other tools step over. Ours is the sha256 of all that follows,
so that any changed bit is detected, before anything is decompressed.

gzip: RFC 1952, section 2.3.1.1 (extra field). Zstandard: RFC 8878, section 3.1.2 (skippable frame).
"""

from __future__ import annotations

import gzip
import importlib.util
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from dskd_export.errors import require

DIGEST_BYTES = 32

# Method deflate, a note, no time, no system. A level is a trade: weights hardly shrink further.
_GZIP_MARK = (
    b"\x1f\x8b\x08\x04" + bytes(4) + b"\x00\xff" + struct.pack("<H2sH", 4 + DIGEST_BYTES, b"DK", DIGEST_BYTES)
)
_GZIP_LEVEL = 6
_ZSTD_MARK = struct.pack("<2I", 0x184D2A50, DIGEST_BYTES)
_ZSTD_LEVEL = 9
# More than level 9 needs, and the most memory that an untrusted file may use.
_ZSTD_MAX_WINDOW_BYTES = 1 << 27


@dataclass(frozen=True)
class Codec:
    """A kind of packed bundle.

    Attributes:
        suffix: of its files.
        mark: how they begin; the sha256 of what follows it stands right behind.
        compressor: makes what follows that sha256: `compress(bytes)`, `flush()`.
        open_reader: a file, read from its start -> a stream whose `read(n)` returns at most n bytes.
        errors: () -> what the stream raises where the data is damaged.
    """

    suffix: str
    mark: bytes
    compressor: Callable[[], Any]
    open_reader: Callable[[BinaryIO], Any]
    errors: Callable[[], tuple[type[Exception], ...]]

    @property
    def begin(self) -> int:
        """Where the compressed data begins."""
        return len(self.mark) + DIGEST_BYTES


class _GzipBody:
    """A gzip member without its header."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._crc = self._size = 0

    def compress(self, data: bytes) -> bytes:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        return self._deflate.compress(data)

    def flush(self) -> bytes:
        return self._deflate.flush() + struct.pack("<2I", self._crc, self._size & 0xFFFFFFFF)


def _zstandard() -> Any:
    return require("zstandard", "zstd")


def _zstd_reader(file: BinaryIO) -> Any:
    file.seek(ZSTD.begin)
    decompressor = _zstandard().ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW_BYTES)
    return decompressor.stream_reader(file, read_across_frames=False, closefd=False)


GZIP = Codec(
    ".tar.gz",
    _GZIP_MARK,
    _GzipBody,
    lambda file: gzip.GzipFile(fileobj=file, mode="rb"),
    lambda: (zlib.error, EOFError, gzip.BadGzipFile),
)
ZSTD = Codec(
    ".tar.zst",
    _ZSTD_MARK,
    lambda: _zstandard().ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compressobj(),
    _zstd_reader,
    lambda: (_zstandard().ZstdError,),
)
CODECS = (ZSTD, GZIP)


def codec_of(name: str) -> Codec | None:
    """Find the compression by a file's suffix; None where there is none."""
    return next((codec for codec in CODECS if name.endswith(codec.suffix) and name != codec.suffix), None)


def default_codec() -> Codec:
    """Zstandard where it is installed, gzip elsewhere."""
    return ZSTD if importlib.util.find_spec("zstandard") is not None else GZIP
