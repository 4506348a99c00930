from __future__ import annotations

import io
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from bundle_support import npy

from dskd_export.files.npz import InvalidNpz, read_npz


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.npz"


def write(path: Path, members: dict[str, bytes], way: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", way) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def array(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(path: Path, save: object) -> None:
    arrays = {
        "x": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "names": np.array(["ü", "b"]),
        "one": np.array(3, ">i8"),
        "none": np.zeros((0, 7)),
        "yes": np.array([True]),
    }
    save(path, **arrays)  # type: ignore[operator]
    found = read_npz(path)
    assert found.keys() == arrays.keys()
    for name, values in arrays.items():
        assert np.array_equal(found[name], values)
        assert found[name].dtype == values.dtype


def refuses(path: Path, what: str) -> None:
    with pytest.raises(InvalidNpz, match=what) as caught:
        read_npz(path)
    assert str(caught.value).isprintable()


def test_objects_are_never_unpickled(path: Path) -> None:
    np.savez(path, x=np.array([{}], dtype=object))
    refuses(path, "not an .npz of plain arrays.*could run code")


def test_bad_deflate(path: Path) -> None:
    data = bytearray(write(path, {"x.npy": array(np.arange(1000))}).read_bytes())
    data[60:90] = b"\xff" * 30
    path.write_bytes(data)
    refuses(path, "damaged")


def test_said_to_be_encrypted(path: Path) -> None:
    data = bytearray(write(path, {"x.npy": array(np.arange(9))}).read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(mark) + flags] |= 1
    path.write_bytes(data)
    refuses(path, "encrypted")


def test_a_bomb_is_not_unpacked(path: Path) -> None:
    data = bytearray(
        write(path, {"x.npy": npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (9,), }")}).read_bytes()
    )
    place = data.find(b"PK\x01\x02") + 24
    data[place : place + 4] = struct.pack("<I", 4_000_000_000)
    path.write_bytes(data)
    refuses(path, "unpack to 4,000,000,000")


@pytest.mark.parametrize(
    "shape", ["(4611686018427387904,)", "(3000000000,)", "(-1,)", "(5,)", "(" * 5000, "(0, 2, True, {})"]
)
def test_a_header_that_does_not_fit_takes_no_memory(path: Path, shape: str) -> None:
    header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    refuses(write(path, {"x.npy": npy(header, bytes(32))}), "cannot be read")


@pytest.mark.parametrize(
    ("members", "way", "what"),
    [
        ({"x.npy": array(np.arange(3)), "readme.txt": b"x"}, zipfile.ZIP_STORED, "something else than arrays"),
        ({"x.npy": array(np.arange(3))}, zipfile.ZIP_LZMA, "a way that numpy does not write"),
        ({"x.npy": array(np.arange(3)) + b"x"}, zipfile.ZIP_STORED, "another size"),
        ({"x.npy": b""}, zipfile.ZIP_STORED, "header"),
        ({"x.npy": array(np.array(["2026"], "M8[Y]"))}, zipfile.ZIP_STORED, "plain arrays"),
    ],
)
def test_other_members(path: Path, members: dict[str, bytes], way: int, what: str) -> None:
    refuses(write(path, members, way), what)


def test_what_is_no_archive(path: Path) -> None:
    refuses(path, "No such file")
    path.write_bytes(array(np.arange(3)))
    refuses(path, "no .npz file")
    path.unlink()
    os.mkfifo(path)
    refuses(path, "not a plain file")
