from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from dskd_compress.data.tar_members import iter_tar_members
from dskd_export.errors import DataError

BLOCK = tarfile.BLOCKSIZE


def tar_of(*names: str) -> bytearray:
    """A header and a block of content for each name, then the end."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 9
            tar.addfile(member, io.BytesIO(b"123456789"))
    return bytearray(buffer.getvalue())


def change(data: bytearray, block: int, begin: int, value: bytes) -> bytes:
    """Write a field of a header, with a checksum that fits."""
    header = data[block * BLOCK : (block + 1) * BLOCK]
    header[begin : begin + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[block * BLOCK : (block + 1) * BLOCK] = header
    return bytes(data)


def names(path: Path, data: bytes) -> list[str]:
    path.write_bytes(data)
    return [member.name for member in iter_tar_members(path)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "images.tar"


def test_members_come_in_their_order(path: Path) -> None:
    long = f"ü/{'x' * 200}.png"
    assert names(path, tar_of("b.png", long, "a.png")) == ["b.png", long, "a.png"]
    assert names(path, tar_of("a.png")[: 2 * BLOCK]) == [
        "a.png"
    ]  # without blocks of zeros, as some tools write it


@pytest.mark.parametrize("size", [b"\xff" * 12, b"-1\0", b"\xff" * 4 + b"\0" * 8])
def test_a_negative_size_does_not_go_round_in_a_circle(path: Path, size: bytes) -> None:
    with pytest.raises(DataError, match="tar file"):
        names(path, change(tar_of("a.png", "b.png", "c.png"), 2, 124, size))


def test_a_header_as_large_as_memory_is_not_read(path: Path) -> None:
    huge = b"\x80" + bytes(4) + (1 << 45).to_bytes(7, "big")
    data = change(tar_of("x" * 200, "b.png"), 0, 124, huge)
    with pytest.raises(DataError, match="impossible size"):
        names(path, data)


def test_a_long_run_of_digits_takes_no_time(path: Path) -> None:
    data = tar_of("y" * 900_000)
    at = data.index(b"y" * 100)
    data[at : at + 900_000] = b"1" * 900_000
    with pytest.raises(DataError, match="endless number"):
        names(path, data)


def test_images_behind_a_damaged_header_are_not_lost_in_silence(path: Path) -> None:
    data = tar_of("a.png", "b.png", "c.png")
    data[2 * BLOCK + 10] ^= 1
    with pytest.raises(DataError, match="damaged header at byte 1,024"):
        names(path, data)


def test_what_is_no_tar(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(DataError, match="not a plain file"):
        list(iter_tar_members(path))
