from __future__ import annotations

import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from dskd_export.errors import BundleError
from dskd_export.golden import Golden
from dskd_export.spec import ModelSpec

NAMES = ["input", "logits", "labels", "image_sha256"]


def npz(arrays: dict[str, np.ndarray], **how: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, **how)  # type: ignore[arg-type]
    return buffer.getvalue()


def test_numpy_reads_it_without_pickle(golden: Golden) -> None:
    with np.load(io.BytesIO(golden.to_bytes()), allow_pickle=False) as archive:
        assert archive.files == NAMES
        for name in NAMES:
            expected = getattr(golden, name)
            assert archive[name].dtype == expected.dtype
            np.testing.assert_array_equal(archive[name], expected)


def test_round_trip_and_same_bytes(golden: Golden, spec: ModelSpec) -> None:
    data = golden.to_bytes()
    again = Golden.from_bytes(data, spec, "golden.npz")
    for name in NAMES:
        np.testing.assert_array_equal(getattr(again, name), getattr(golden, name))
    assert again.to_bytes() == data


def test_reads_what_numpy_writes(golden: Golden, spec: ModelSpec) -> None:
    data = npz({name: getattr(golden, name) for name in NAMES})
    np.testing.assert_array_equal(Golden.from_bytes(data, spec, "golden.npz").input, golden.input)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": np.zeros((4, 3, 6, 9), np.float32)}, r"input is float32 \[4, 3, 6, 9\].*\[4, 3, 6, 8\]"),
        ({"input": np.zeros((4, 3, 6, 8))}, "input is float64"),
        ({"logits": np.zeros((4, 6), np.float32)}, "logits is"),
        ({"labels": np.zeros(4, np.int32)}, "labels is int32"),
        ({"labels": np.array(3)}, "input is"),
        ({"labels": np.array([0, 1, 7, 2])}, "a label is not one of 7 classes"),
        ({"labels": np.array([0, -1, 6, 2])}, "a label is not one of 7 classes"),
        ({"logits": np.full((4, 7), np.nan, np.float32)}, "NaN or Inf"),
        ({"image_sha256": np.array(["short"] * 4)}, "image_sha256 is"),
    ],
)
def test_what_does_not_fit_the_spec(
    golden: Golden, spec: ModelSpec, changes: dict[str, np.ndarray], message: str
) -> None:
    wrong = replace(golden, **changes)
    with pytest.raises(BundleError, match=message):
        wrong.check(spec, "golden.npz")
    with pytest.raises(BundleError, match=message):
        Golden.from_bytes(wrong.to_bytes(), spec, "golden.npz")


def test_no_images(golden: Golden, spec: ModelSpec) -> None:
    empty = Golden(*(getattr(golden, name)[:0] for name in NAMES))
    with pytest.raises(BundleError, match="no images"):
        empty.check(spec, "golden.npz")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return exec, ("from test_golden_marker import nothing",)


def test_pickle_is_refused_and_not_run(golden: Golden, spec: ModelSpec) -> None:
    arrays = {name: getattr(golden, name) for name in NAMES}
    arrays["labels"] = np.array([Evil()] * 4, dtype=object)
    with pytest.raises(BundleError, match=r"golden\.npz cannot be read"):
        Golden.from_bytes(npz(arrays, allow_pickle=True), spec, "golden.npz")


def test_damage_is_named(golden: Golden, spec: ModelSpec) -> None:
    data = golden.to_bytes()
    flipped = bytearray(data)
    flipped[200] ^= 1  # inside the first array: the archive's own checksum tells
    for broken in (b"", b"no zip", data[: len(data) // 2], bytes(flipped)):
        with pytest.raises(BundleError, match=r"golden\.npz cannot be read"):
            Golden.from_bytes(broken, spec, "golden.npz")


def test_a_bomb_is_refused_before_it_is_unpacked(golden: Golden, spec: ModelSpec) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: getattr(golden, name) for name in NAMES})
    with pytest.raises(BundleError, match="compressed"):
        Golden.from_bytes(buffer.getvalue(), spec, "golden.npz")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }", "not as long as its header"),
        (b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "not as long as its header"),
        (b"{'descr': '<f4'}", "cannot be read"),
    ],
)
def test_a_header_that_lies(golden: Golden, spec: ModelSpec, header: bytes, message: str) -> None:
    header = header.ljust(117) + b"\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 8
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in NAMES:
            archive.writestr(f"{name}.npy", array)
    with pytest.raises(BundleError, match=message):
        Golden.from_bytes(buffer.getvalue(), spec, "golden.npz")


def test_members_by_other_names(golden: Golden, spec: ModelSpec) -> None:
    arrays = {name: getattr(golden, name) for name in NAMES}
    with pytest.raises(BundleError, match="does not hold exactly"):
        Golden.from_bytes(npz({**arrays, "more": np.zeros(1)}), spec, "golden.npz")


def test_another_npy_version(golden: Golden, spec: ModelSpec) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in NAMES:
            member = io.BytesIO()
            np.lib.format.write_array(member, getattr(golden, name), version=(2, 0))
            archive.writestr(f"{name}.npy", member.getvalue())
    with pytest.raises(BundleError, match=r"version 1\.0"):
        Golden.from_bytes(buffer.getvalue(), spec, "golden.npz")


def test_bytes_in_the_order_of_decoders(golden: Golden, make_spec) -> None:
    spec = make_spec(input_dtype="uint8", input_layout="NHWC")
    pixels = replace(golden, input=np.zeros((4, 6, 8, 3), np.uint8))
    np.testing.assert_array_equal(Golden.from_bytes(pixels.to_bytes(), spec, "golden.npz").input, pixels.input)
    with pytest.raises(BundleError, match=r"input is float32 \[4, 3, 6, 8\].*uint8 \[4, 6, 8, 3\]"):
        golden.check(spec, "golden.npz")
