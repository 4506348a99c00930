from __future__ import annotations

import os
from pathlib import Path

import pytest

from dskd_export.errors import DataError
from dskd_export.files.bounded import read_bounded, read_lines


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(DataError, match=r"5 bytes.* 4 "):
        read_bounded(path, 4)
    (tmp_path / "link").symlink_to(path)
    assert read_bounded(tmp_path / "link", 5) == b"12345"


def test_the_limit_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    path.touch()
    os.truncate(path, 1 << 40)  # a hole: no disk and no memory has this much
    with pytest.raises(DataError, match="1,099,511,627,776 bytes"):
        read_bounded(path, 1 << 20)


def test_a_file_that_claims_to_be_empty_is_bounded_too() -> None:
    path = Path("/proc/self/maps")
    if not path.exists():
        pytest.skip("no /proc")
    with pytest.raises(DataError, match=" 10 "):
        read_bounded(path, 10)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_opened(make: object, tmp_path: Path) -> None:
    make(tmp_path / "x")  # type: ignore[operator]
    with pytest.raises(DataError, match="plain file"):
        read_bounded(tmp_path / "x", 10)
    with pytest.raises(DataError, match="plain file"):
        list(read_lines(tmp_path / "x", 10))
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "missing", 10)


def test_lines_keep_their_ends_and_a_longer_one_is_the_last(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes("a\u2028b\n\nc\r\nd".encode())
    assert list(read_lines(path, 100)) == ["a\u2028b\n".encode(), b"\n", b"c\r\n", b"d"]
    path.write_bytes(b"ab\n" + b"x" * 50 + b"\nab\n")
    assert list(read_lines(path, 10)) == [b"ab\n", b"x" * 10]
