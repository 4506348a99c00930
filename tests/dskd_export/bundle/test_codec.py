from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dskd_export.bundle.codec import BLOCK, END, MAX_SIZE, claimed_size, padding, tar_header


@settings(deadline=None)
@given(st.lists(st.binary(max_size=1500), max_size=4))
def test_pythons_own_tarfile_reads_it(files: list[bytes]) -> None:
    data = b"".join(
        tar_header(f"file.{index}", len(content)) + content + padding(len(content))
        for index, content in enumerate(files)
    )
    with tarfile.open(fileobj=io.BytesIO(data + END), mode="r:") as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == [f"file.{index}" for index in range(len(files))]
        for member, content in zip(members, files, strict=True):
            assert member.isreg()
            assert (member.mode, member.mtime, member.uid, member.gid) == (0o644, 0, 0, 0)
            assert (member.uname, member.gname, member.linkname) == ("", "", "")
            extracted = archive.extractfile(member)
            assert extracted is not None
            assert extracted.read() == content


@settings(deadline=None)
@given(st.integers(0, MAX_SIZE))
def test_the_size_is_told(size: int) -> None:
    header = tar_header("a", size)
    assert len(header) == BLOCK
    assert claimed_size(header) == size
    assert (size + len(padding(size))) % BLOCK == 0


@pytest.mark.parametrize(
    "digits", [b"0000000001x", b"\x80" + b"\xff" * 10, b"           ", b"-0000000001", b"00000000_1\0"]
)
def test_no_size(digits: bytes) -> None:
    header = bytearray(tar_header("a", 1))
    header[124:135] = digits
    assert claimed_size(bytes(header)) is None


def test_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="does not fit a plain tar"):
        tar_header("a", MAX_SIZE + 1)
    with pytest.raises(ValueError, match="does not fit a plain tar"):
        tar_header("a" * 101, 0)
    with pytest.raises(UnicodeEncodeError):
        tar_header("ü", 0)
