from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from bundle_support import npy, zipped
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis_support import examples

from dskd_export.bundle.golden import Golden
from dskd_export.errors import BundleError
from dskd_export.spec import ModelSpec

NAMES = ["input", "logits", "labels", "image_sha256"]


def npz(arrays: dict[str, np.ndarray], **how: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, **how)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize("images", [1, 4, 11, 300])
def test_numpy_reads_it_without_pickle(images: int, make_golden: Callable[..., Golden]) -> None:
    golden = make_golden(images)
    with np.load(io.BytesIO(golden.to_bytes()), allow_pickle=False) as archive:
        assert archive.files == NAMES
        for name in NAMES:
            expected = getattr(golden, name)
            assert archive[name].dtype == expected.dtype
            np.testing.assert_array_equal(archive[name], expected)


def test_zipfile_finds_nothing_wrong(golden: Golden) -> None:
    with zipfile.ZipFile(io.BytesIO(golden.to_bytes())) as archive:
        assert archive.testzip() is None
        for member in archive.infolist():
            assert (member.compress_type, member.date_time) == (zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0))
            assert member.external_attr >> 16 == 0o644


def test_every_member_is_what_numpy_would_write(golden: Golden) -> None:
    """By the format it may differ in nothing but the padding of the header."""
    with zipfile.ZipFile(io.BytesIO(golden.to_bytes())) as archive:
        for name in NAMES:
            array = getattr(golden, name)
            ours = archive.read(f"{name}.npy")
            header, values = ours[: -array.nbytes], ours[-array.nbytes :]
            assert values == array.tobytes()
            assert len(header) % 64 == 0
            stream = io.BytesIO(ours)
            assert np.lib.format.read_magic(stream) == (1, 0)
            assert np.lib.format.read_array_header_1_0(stream) == (array.shape, False, array.dtype)
            assert stream.tell() == len(header)


@pytest.mark.parametrize("images", [1, 9, 10, 99, 100, 1000])
def test_round_trip_and_same_bytes(images: int, make_golden: Callable[..., Golden], spec: ModelSpec) -> None:
    golden = make_golden(images)
    data = golden.to_bytes()
    again = Golden.from_bytes(data, spec, "golden.npz")
    for name in NAMES:
        np.testing.assert_array_equal(getattr(again, name), getattr(golden, name))
        assert getattr(again, name).flags.writeable
    assert again.to_bytes() == data


def test_the_memory_layout_is_no_matter(golden: Golden) -> None:
    turned = replace(golden, input=np.asfortranarray(golden.input))
    assert turned.to_bytes() == golden.to_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": np.zeros((4, 3, 6, 9), np.float32)}, r"input is float32 \[4, 3, 6, 9\].*\[4, 3, 6, 8\]"),
        ({"input": np.zeros((4, 3, 6, 8))}, "input is float64"),
        ({"input": np.zeros((4, 3, 6, 8), ">f4")}, "input is >f4"),
        ({"logits": np.zeros((4, 6), np.float32)}, "logits is"),
        ({"labels": np.zeros(4, np.int32)}, "labels is int32"),
        ({"labels": np.array(3)}, "input is"),
        ({"labels": np.array([0, 1, 7, 2])}, "label.* 7 classes"),
        ({"labels": np.array([0, -1, 6, 2])}, "label.* 7 classes"),
        ({"logits": np.full((4, 7), np.nan, np.float32)}, "NaN or Inf"),
        ({"input": np.full((4, 3, 6, 8), np.inf, np.float32)}, "NaN or Inf"),
        ({"image_sha256": np.array(["short"] * 4)}, "image_sha256 is <U5"),
        ({"image_sha256": np.array(["A" * 64] * 4)}, "image_sha256 is not"),
        ({"image_sha256": np.array([("0" * 63) + "\x1b"] * 4)}, "image_sha256 is not"),
        ({"image_sha256": np.full(4 * 64, 0x7FFFFFFF, "<u4").view("<U64")}, "image_sha256 is not"),
    ],
)
def test_what_does_not_fit_the_spec(
    golden: Golden, spec: ModelSpec, changes: dict[str, np.ndarray], message: str
) -> None:
    wrong = replace(golden, **changes)
    with pytest.raises(BundleError, match=message):
        wrong.check(spec, "golden.npz")
    with pytest.raises(BundleError, match=r"golden\.npz"):
        Golden.from_bytes(wrong.to_bytes(), spec, "golden.npz")


def test_no_images(golden: Golden, spec: ModelSpec) -> None:
    empty = Golden(*(getattr(golden, name)[:0] for name in NAMES))
    with pytest.raises(BundleError, match="no images"):
        empty.check(spec, "golden.npz")
    with pytest.raises(BundleError, match="golden images of this spec"):
        Golden.from_bytes(empty.to_bytes(), spec, "golden.npz")


def test_a_spec_of_no_size_at_all(golden: Golden, make_spec: Callable[..., ModelSpec]) -> None:
    huge = make_spec(height=10**18, width=10**18)
    with pytest.raises(BundleError, match="golden images of this spec"):
        Golden.from_bytes(golden.to_bytes(), huge, "golden.npz")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return exec, ("from test_golden_marker import nothing",)


def test_pickle_is_refused_and_not_run(golden: Golden, spec: ModelSpec) -> None:
    arrays = {name: getattr(golden, name) for name in NAMES}
    arrays["labels"] = np.array([Evil()] * 4, dtype=object)
    with pytest.raises(BundleError, match=r"golden\.npz.*golden images"):
        Golden.from_bytes(npz(arrays, allow_pickle=True), spec, "golden.npz")


@pytest.mark.parametrize("data", [b"", b"no zip", b"\0" * 4400])
def test_no_archive(data: bytes, spec: ModelSpec) -> None:
    with pytest.raises(BundleError, match=r"golden\.npz.*(near byte 0|golden images of this spec)"):
        Golden.from_bytes(data, spec, "golden.npz")


@settings(max_examples=examples(200), deadline=None)
@given(st.data())
def test_no_byte_of_it_can_change(data: st.DataObject) -> None:
    from bundle_support import make_golden, make_spec

    sound = make_golden().to_bytes()
    position = data.draw(st.integers(0, len(sound) - 1))
    changed = bytearray(sound)
    changed[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BundleError, match="near byte"):
        Golden.from_bytes(bytes(changed), make_spec(), "golden.npz")


def test_what_others_write(golden: Golden, spec: ModelSpec) -> None:
    """Only the bytes that `to_bytes` writes: nothing else has to be parsed, so nothing else can do harm."""
    arrays = {name: getattr(golden, name) for name in NAMES}
    members = {
        f"{name}.npy": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2500000000,), }") for name in NAMES
    }
    bomb = {name: data + bytes(1_000_000) for name, data in members.items()}
    sound = golden.to_bytes()
    for data in (
        npz(arrays),
        npz({**arrays, "more": np.zeros(1)}),
        zipped(members),
        zipped(bomb, zipfile.ZIP_DEFLATED),
        zipped({"../../secret.npy": b"x", **members}),
        sound + b"\0",
        sound[:-2] + b"\x03\x00abc",
        b"\0" + sound,
        sound[:18] + struct.pack("<2I", 0xFFFFFFFF, 0xFFFFFFFF) + sound[26:],
    ):
        with pytest.raises(BundleError, match=r"golden\.npz.*(near byte|golden images of this spec)"):
            Golden.from_bytes(data, spec, "golden.npz")


def test_bytes_in_the_order_of_decoders(golden: Golden, make_spec) -> None:
    spec = make_spec(input_dtype="uint8", input_layout="NHWC")
    pixels = replace(golden, input=np.zeros((4, 6, 8, 3), np.uint8))
    np.testing.assert_array_equal(Golden.from_bytes(pixels.to_bytes(), spec, "golden.npz").input, pixels.input)
    with pytest.raises(BundleError, match=r"input is float32 \[4, 3, 6, 8\].*uint8 \[4, 6, 8, 3\]"):
        golden.check(spec, "golden.npz")
