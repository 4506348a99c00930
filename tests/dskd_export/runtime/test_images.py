"""Against timm's own dataset on files of every kind, and against files that are none."""

from __future__ import annotations

import errno
import io
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis_support import examples
from photo_support import CUT_OFF, FILES, KINDS, photo_paths, read_photo
from PIL import Image

from dskd_compress.timm_import import import_timm
from dskd_export.errors import DataError
from dskd_export.runtime.images import UnreadableImage, convert_image_errors, open_image, to_rgb

PHOTO = read_photo(photo_paths()[0], pixels=160)
SMALL = read_photo(photo_paths()[1], pixels=24)


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("kind", FILES)
def test_a_file_becomes_what_timms_dataset_makes_of_it(kind: str, tmp_path: Path) -> None:
    import_timm()
    from timm.data import create_dataset

    path = tmp_path / "class" / "photo.png"  # timm goes by the name, Pillow by the contents
    path.parent.mkdir()
    path.write_bytes(FILES[kind](PHOTO))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that transparency gets lost
        theirs, _ = create_dataset("", root=tmp_path)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = open_image(path)
    np.testing.assert_array_equal(pixels(ours), pixels(theirs))
    assert type(ours) is Image.Image
    np.testing.assert_array_equal(pixels(open_image(path.read_bytes())), pixels(ours))
    np.testing.assert_array_equal(pixels(open_image(str(path))), pixels(ours))
    with path.open("rb") as stream:
        np.testing.assert_array_equal(pixels(open_image(stream)), pixels(ours))
        assert not stream.closed
    with Image.open(path) as image:
        np.testing.assert_array_equal(pixels(to_rgb(image)), pixels(ours))


def test_exif_does_not_turn_a_jpeg_but_pillow_turns_a_tiff() -> None:
    upright = open_image(KINDS["JPEG EXIF orientation 1"](PHOTO))
    for value in range(2, 9):
        np.testing.assert_array_equal(pixels(open_image(KINDS[f"JPEG EXIF orientation {value}"](PHOTO))), upright)
    assert open_image(KINDS["PNG EXIF orientation 6"](PHOTO)).size == PHOTO.size
    assert open_image(KINDS["TIFF EXIF orientation 8"](PHOTO)).size == PHOTO.size[::-1]


@pytest.mark.parametrize(
    "kind", ["PNG alpha (RGBA)", "PNG, one colour transparent", "PNG 16 bit colour and alpha"]
)
def test_the_colours_beneath_alpha_are_seen(kind: str) -> None:
    np.testing.assert_array_equal(pixels(open_image(KINDS[kind](PHOTO))), PHOTO)


def test_the_first_of_several_is_taken() -> None:
    np.testing.assert_array_equal(pixels(open_image(KINDS["TIFF, two pages"](PHOTO))), PHOTO)


@pytest.mark.parametrize("kind", CUT_OFF)
def test_what_pillow_would_cut_off_is_refused(kind: str) -> None:
    content = CUT_OFF[kind](PHOTO)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cut = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert (cut == 255).mean() > 0.9 or (cut <= 1).mean() > 0.9 or kind == "TIFF float with NaN"
    with pytest.raises(UnreadableImage, match=r"scan\.tif: pixels of type [IF]\S* that are not all") as caught:
        open_image(content, "scan.tif")
    assert caught.value.hint == "Scale it to 8 bits a channel."
    assert isinstance(caught.value, DataError)
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert (str(again), again.name, again.reason) == (
        str(caught.value),
        "scan.tif",
        caught.value.reason,
    )
    with pytest.raises(UnreadableImage, match="not all whole numbers"):
        to_rgb(Image.open(io.BytesIO(content)))


def test_rgb_is_given_back_and_others_are_left_as_they_are() -> None:
    assert to_rgb(PHOTO) is PHOTO
    image = Image.open(io.BytesIO(KINDS["PNG palette, alpha of each colour"](PHOTO)))
    assert to_rgb(image).mode == "RGB"
    assert (image.mode, type(image.info["transparency"])) == ("P", bytes)


def test_a_mode_that_pillow_cannot_convert_is_named() -> None:
    with pytest.raises(UnreadableImage, match=r"^The image: conversion from La"):
        to_rgb(Image.new("La", (4, 4)))


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match=r"gone\.png: No such file or directory\."):
        open_image(tmp_path / "gone.png")
    with pytest.raises(UnreadableImage, match=r"^gone: No such file"):
        open_image(tmp_path / "gone.png", "gone")
    with pytest.raises(UnreadableImage, match=r": Is a directory\."):
        open_image(tmp_path)
    for content in (b"", b"no image", b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(UnreadableImage, match=r"^The image: ") as caught:
            open_image(content)
        assert "BytesIO" not in str(caught.value)
        assert caught.value.hint == "Repair or delete the file."


def test_a_lazily_opened_image_that_is_cut_short() -> None:
    content = KINDS["JPEG"](PHOTO)
    with pytest.raises(UnreadableImage, match="runcated"):
        to_rgb(Image.open(io.BytesIO(content[: len(content) // 2])))


def test_a_decompression_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    content = KINDS["PNG"](PHOTO)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", PHOTO.width * PHOTO.height // 2 - 1)
    with pytest.raises(UnreadableImage, match="decompression bomb"):
        open_image(content)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert open_image(content).size == PHOTO.size


def test_postscript_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin

    def ghostscript(*_: object, **__: object) -> None:
        raise AssertionError("was called")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", ghostscript)
    stream = io.BytesIO()
    SMALL.save(stream, "EPS")
    with pytest.raises(UnreadableImage, match="PostScript"):
        open_image(stream.getvalue(), "photo.jpg")


def test_too_little_memory_is_not_the_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", convert)
    with pytest.raises(MemoryError):
        open_image(KINDS["PNG grey (L)"](PHOTO))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_limit_of_the_machine_is_not_the_files_fault(number: int) -> None:
    with pytest.raises(OSError, match="photo") as caught, convert_image_errors("photo.jpg"):
        raise OSError(number, os.strerror(number), "photo.jpg")
    assert caught.value.errno == number
    with pytest.raises(UnreadableImage), convert_image_errors("photo.jpg"):
        raise OSError(errno.EIO, os.strerror(errno.EIO), "photo.jpg")


SOUND = {kind: writer(SMALL) for kind, writer in {**KINDS, **CUT_OFF}.items()}


@settings(max_examples=examples(300), deadline=None)
@given(
    kind=st.sampled_from(sorted(SOUND)),
    keep=st.floats(0, 1),
    cut=st.booleans(),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=4),
)
def test_damaged_files_are_read_or_refused(
    kind: str, keep: float, cut: bool, flips: list[tuple[float, int]]
) -> None:
    content = bytearray(SOUND[kind])
    for where, mask in flips:
        content[int(where * (len(content) - 1))] ^= mask
    damaged = bytes(content[: int(keep * len(content))] if cut else content)
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # of Pillow's about what it reads
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 500_000)  # a flipped bit of the size makes no gigabyte
        refused = None
        try:
            assert open_image(damaged, kind).mode == "RGB"
        except UnreadableImage as error:
            refused = error
    assert refused is None or (refused.name == kind and "\n" not in refused.message)
