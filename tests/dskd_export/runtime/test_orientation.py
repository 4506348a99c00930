"""The orientation in EXIF, against Pillow's own `exif_transpose`, and metadata that are damaged."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis_support import examples
from photo_support import KINDS, photo_paths, read_photo, store_turned
from PIL import Image, ImageOps, features

from dskd_export.runtime.images import open_image, to_rgb
from dskd_export.runtime.orientation import UPRIGHT, is_notable, read_orientation, read_stored_orientation
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.spec import ModelSpec

PHOTO = read_photo(photo_paths()[0], pixels=90)
LOSSLESS = {"PNG": {"compress_level": 1}, "TIFF": {}}
LOSSY: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 90},
    "MPO": {"save_all": True, "append_images": [PHOTO.rotate(180)]},
}
if features.check("webp"):
    LOSSLESS["WEBP"] = {"lossless": True, "method": 0}
if features.check("avif"):
    LOSSY["AVIF"] = {"speed": 10}


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image)


def as_stored(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", [*LOSSLESS, *LOSSY])
def test_every_orientation_of_every_format_is_pillows(
    make_spec: Callable[..., ModelSpec], format: str, orientation: int, tmp_path: Path
) -> None:
    content = store_turned(PHOTO, orientation, format, **(LOSSLESS | LOSSY)[format])
    theirs = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    upright = open_image(content, exif="apply")
    assert upright.size == PHOTO.size
    np.testing.assert_array_equal(pixels(upright), np.asarray(theirs))
    if format in LOSSLESS:
        np.testing.assert_array_equal(pixels(upright), np.asarray(PHOTO))
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    # Whichever way an image comes to the model, and however often it is turned, it is turned once.
    spec = make_spec(height=32, width=48, exif="apply")
    wanted = preprocess_batch([theirs], make_spec(height=32, width=48))
    ways = [upright, open_image(path), Image.open(path), Image.open(path).convert("RGB"), to_rgb(Image.open(path))]
    for image in [*ways, to_rgb(open_image(path), exif="apply")]:
        np.testing.assert_array_equal(preprocess_batch([image], spec), wanted)
    if format != "TIFF":  # Pillow turns it in any case
        stored = open_image(content)
        np.testing.assert_array_equal(pixels(stored), as_stored(content))
        assert read_orientation(stored) == read_stored_orientation(path) == orientation
        plain = preprocess_batch([Image.fromarray(pixels(stored))], make_spec(height=32, width=48))
        np.testing.assert_array_equal(preprocess_batch([stored], make_spec(height=32, width=48)), plain)


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "1"])
def test_images_of_other_modes_are_turned(mode: str) -> None:
    image = PHOTO.convert(mode)
    content = store_turned(image, 6)
    np.testing.assert_array_equal(pixels(open_image(content, exif="apply")), np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(
        pixels(to_rgb(Image.open(io.BytesIO(content)), exif="apply")), np.asarray(image.convert("RGB"))
    )


def test_an_orientation_that_stands_in_xmp_alone() -> None:
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    stream = io.BytesIO()
    PHOTO.transpose(Image.Transpose.ROTATE_90).save(stream, "JPEG", xmp=packet, quality=95)
    turned = open_image(stream.getvalue(), exif="apply")
    theirs = ImageOps.exif_transpose(Image.open(stream))
    np.testing.assert_array_equal(pixels(turned), np.asarray(theirs))
    assert turned.size == PHOTO.size
    assert read_stored_orientation(stream) == 6


def test_what_pillow_turns_is_turned_once(make_spec: Callable[..., ModelSpec]) -> None:
    """A TIFF's own tag wins over its XMP, and is used up."""
    packet = b'<rdf:Description tiff:Orientation="8"/>'
    for own in (1, 6):
        stream = io.BytesIO()
        PHOTO.save(stream, "TIFF", tiffinfo={0x0112: own, 700: packet})
        stored = open_image(stream.getvalue())
        for image in (stored, open_image(stream.getvalue(), exif="apply")):
            assert image.size == (PHOTO.size if own == 1 else PHOTO.size[::-1])
            spec = make_spec(height=32, width=48)
            np.testing.assert_array_equal(
                preprocess_batch([image], spec.model_copy(update={"exif": "apply"})),
                preprocess_batch([image], spec),
            )


DAMAGED = {
    "nothing": b"",
    "no header": b"garbage of any kind",
    "cut short": b"Exif\0\0II*\0\x08\0\0\0\x05",
    "an offset behind the end": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "zero": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\0\0\0\0\0\0\0\0",
    "nine": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0\0\0\0\0",
    "text": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\0\x36\0\0\0\0\0\0\0",
    "a type that does not exist": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x63\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_damaged_metadata_and_values_without_a_meaning_count_as_none(kind: str, format: str) -> None:
    stream = io.BytesIO()
    PHOTO.save(stream, format, exif=DAMAGED[kind])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's reader
        image = open_image(stream.getvalue(), exif="apply")
        assert read_stored_orientation(stream) == UPRIGHT
        np.testing.assert_array_equal(pixels(image), as_stored(stream.getvalue()))


@settings(max_examples=examples(150), deadline=None)
@given(flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=4), keep=st.floats(0, 1))
def test_metadata_that_are_flipped_and_cut_never_stop_an_image(
    flips: list[tuple[float, int]], keep: float
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "Maker", 72.0
    data = bytearray(exif.tobytes())
    for where, mask in flips:
        data[int(where * (len(data) - 1))] ^= mask
    image = PHOTO.copy()
    image.info["exif"] = bytes(data[: int(keep * len(data))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert to_rgb(image, exif="apply").size in (PHOTO.size, PHOTO.size[::-1])


def test_a_file_that_is_no_image_counts_as_upright(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"no image")
    assert read_stored_orientation(tmp_path / "photo.jpg") == UPRIGHT
    assert read_stored_orientation(tmp_path / "missing.jpg") == UPRIGHT


def test_reading_headers_decodes_no_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageFile

    def load(*_: object) -> None:
        raise AssertionError("was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    for format in ("JPEG", "PNG"):
        assert read_stored_orientation(io.BytesIO(store_turned(PHOTO, 8, format))) == 8
    assert read_stored_orientation(io.BytesIO(KINDS["PNG"](PHOTO))) == UPRIGHT


@pytest.mark.parametrize(("turned", "images", "notable"), [(0, 0, False), (2, 200, False), (3, 200, True)])
def test_more_than_a_percent_deserves_a_warning(turned: int, images: int, notable: bool) -> None:
    assert is_notable(turned, images) is notable
