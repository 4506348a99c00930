"""Members of a tar that a user hands in, whatever its headers say.

`tarfile` follows a negative size backwards, takes as much memory as a header names, searches long runs of digits
in quadratic time, and treats a damaged header as the end. So what it reads is bounded, members must come in
order, and the archive must end where its members end.
"""

from __future__ import annotations

import io
import os
import re
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path

from dskd_export.errors import DataError
from dskd_export.files.atomic import NotAPlainFile, open_plain

_MOST_AT_ONCE = 1 << 20  # bytes; a header with a long name has a few hundred
_DIGITS = re.compile(rb"\d{300}")  # longer than a name can be


class _Damaged(Exception):
    """A header that no tar has."""


class _Headers(io.FileIO):
    """A file of which only headers are read."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes, refusing what no header has."""
        if size is None or not 0 <= size <= _MOST_AT_ONCE:
            raise _Damaged("a header of an impossible size")
        data = super().read(size) or b""
        if _DIGITS.search(data):
            raise _Damaged("a header with an endless number")
        return data


def iter_tar_members(path: Path) -> Iterator[tarfile.TarInfo]:
    """Give the members of an uncompressed tar, in their order.

    Raises:
        DataError: it is compressed, damaged, or no plain file.
    """
    try:
        with (
            open_plain(path, follow_links=True) as plain,
            _Headers(os.dup(plain.fileno())) as file,
            tarfile.open(fileobj=file, mode="r:") as tar,
        ):
            end = 0
            for member in tar:
                if member.offset < end or member.size < 0:
                    raise _Damaged("a member of negative size")
                end = member.offset_data
                yield member
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise _Damaged(f"a damaged header at byte {tar.offset:,}")
    except NotAPlainFile as error:
        raise DataError(f"{path} is not a plain file.", "Name a file.") from error
    except _Damaged as error:
        raise DataError(f"{path}: not a plain tar file ({error}).", "Pack the folder again.") from error
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{path}: not a plain tar file ({error}).",
            "A compressed archive cannot be read at random: unpack it and pack it with `tar -cf`.",
        ) from error
    except (ValueError, ArithmeticError, LookupError, RecursionError, struct.error) as error:
        raise DataError(f"{path}: not a plain tar file (a damaged header).", "Pack the folder again.") from error
