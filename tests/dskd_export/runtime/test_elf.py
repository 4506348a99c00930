from __future__ import annotations

import contextlib
import ctypes
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from library_support import fat_binary, library_bytes, write_library

from dskd_export.runtime.elf import NotElf, read_kernels, read_needed


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("elf") / "libany.so"


NAMES = st.lists(st.from_regex(r"lib[a-z]{1,12}\.so\.[0-9]{1,2}", fullmatch=True), max_size=8, unique=True)


@given(
    needed=NAMES,
    runpath=st.sampled_from(["", "$ORIGIN", "$ORIGIN/../lib:/opt/lib"]),
    soname=st.sampled_from(["", "libown.so.1"]),
)
def test_what_was_written_is_read(file: Path, needed: list[str], runpath: str, soname: str) -> None:
    assert read_needed(write_library(file, needed, runpath=runpath, soname=soname)) == tuple(needed)


def test_the_loader_takes_our_library_and_says_what_it_misses(tmp_path: Path) -> None:
    ctypes.CDLL(str(write_library(tmp_path / "libsound.so", ["libc.so.6"])))
    broken = write_library(tmp_path / "libbroken.so", ["libnowhere.so.98"])
    with pytest.raises(OSError, match=r"libnowhere\.so\.98: cannot open shared object file"):
        ctypes.CDLL(str(broken))


def test_a_library_of_the_system() -> None:
    """Held against the loader: all that this interpreter's own extension needs can be loaded."""
    import _ctypes

    if _ctypes.__file__ is None:
        pytest.skip("this Python has _ctypes built in")
    needed = read_needed(Path(_ctypes.__file__))
    assert any(name.startswith(("libc.so", "libffi.so", "libpthread.so")) for name in needed)
    for name in needed:
        ctypes.CDLL(name)


def test_a_fat_binary_among_other_bytes(tmp_path: Path) -> None:
    content = b"\x50\xed\x55\xba" * 3 + fat_binary([75, 80, 120], [90]) + b"x" * 7 + fat_binary([86])
    kernels = read_kernels(write_library(tmp_path / "libkernels.so", content=content))
    assert kernels.cubin == {(7, 5), (8, 0), (8, 6), (12, 0)}
    assert kernels.ptx == {(9, 0)}


def test_a_library_without_kernels(tmp_path: Path) -> None:
    kernels = read_kernels(write_library(tmp_path / "libplain.so"))
    assert not kernels.cubin
    assert not kernels.ptx


@pytest.mark.parametrize("data", [b"", b"text", b"\x7fELF\1\1\1" + bytes(57)])
def test_what_is_no_library(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file.so"
    path.write_bytes(data)
    with pytest.raises(NotElf):
        read_needed(path)


@pytest.mark.parametrize("place", [2**62, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("at", [32, 64 + 8, 64 + 56 + 8])  # of the segments; where each of them lies
def test_a_place_beyond_any_address(file: Path, place: int, at: int) -> None:
    whole = bytearray(library_bytes(["libc.so.6"]))
    whole[at : at + 8] = place.to_bytes(8, "little")
    file.write_bytes(whole)
    with pytest.raises(NotElf):
        read_needed(file)


def test_more_segments_than_any_library_has(file: Path) -> None:
    segment = struct.pack("<IIQQQQQQ", 2, 6, 64, 0, 0, 2**40, 0, 8)  # each of them as a dynamic section
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 3, 62, 1, 0, 64, 0, 0, 64, 56, 60_000, 64, 0, 0)
    file.write_bytes(header + segment * 60_000)
    with pytest.raises(NotElf):
        read_needed(file)


@given(data=st.data())
def test_a_damaged_library_is_told_or_read_and_nothing_else(file: Path, data: st.DataObject) -> None:
    whole = bytearray(library_bytes(["libc.so.6"], soname="libx.so.1", content=fat_binary([80])))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(whole[: data.draw(st.integers(1, len(whole)))])
    read_kernels(file)
    with contextlib.suppress(NotElf):
        read_needed(file)


if sys.platform != "linux":
    pytest.skip("ELF is what Linux has", allow_module_level=True)
