"""The plain files of a ustar archive, and nothing else that a tar can hold.

A header is compared and not parsed: of a file of this name and size there is only one, the same with
every version of Python. Format: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html
"""

from __future__ import annotations

import struct

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
