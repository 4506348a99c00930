"""Write and read a packed bundle: plain ustar members, compressed by gzip or Zstandard.

A tar header is compared and not parsed: of a file of this name and size there is only one, the same with every
version of Python. Format: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html

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

BLOCK = 512
END = bytes(2 * BLOCK)
MAX_SIZE = 0o77777777777
"""Bytes of the largest file that a plain header can say."""

# name, mode, uid, gid, size, mtime, checksum, type, link, magic and version, user, group, device, prefix
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_SIZE_AT = slice(124, 135)
_NOBODY, _FILE_MODE, _NO_TIME = b"0000000", b"0000644", b"00000000000"


def tar_header(name: str, size: int) -> bytes:
    """The header of a plain file: mode 644, user and group 0, 1 January 1970.

    Raises:
        ValueError: the name is longer than 100 bytes or not ASCII, or the file too large.
    """
    encoded = name.encode("ascii")
    if len(encoded) > 100 or not 0 <= size <= MAX_SIZE:
        raise ValueError(f"{name} of {size:,} bytes does not fit a plain tar")

    def packed(checksum: bytes) -> bytes:
        return _HEADER.pack(
            *(encoded, _FILE_MODE, _NOBODY, _NOBODY, b"%011o" % size, _NO_TIME, checksum, b"0", b""),
            *(b"ustar\x0000", b"", b"", _NOBODY, _NOBODY, b""),
        )

    return packed(b"%06o\0 " % sum(packed(b" " * 8)))


def claimed_size(header: bytes) -> int | None:
    """Bytes of the file that a header is of; None: it says no size. Compare the header before believing it."""
    digits = header[_SIZE_AT]
    return int(digits, 8) if digits and not digits.strip(b"01234567") else None


def padding(size: int) -> bytes:
    """What fills the last block of a file."""
    return bytes(-size % BLOCK)


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
