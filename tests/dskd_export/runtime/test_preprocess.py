from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis_support import examples
from photo_support import CUT_OFF, FILES, photo_paths, read_photo
from PIL import Image

from dskd_compress.timm_import import import_timm
from dskd_export.errors import DataError
from dskd_export.runtime.images import UnreadableImage, open_image
from dskd_export.runtime.preprocess import preprocess, preprocess_batch, resize_and_crop
from dskd_export.spec import ModelSpec

import_timm()
from timm.data import create_transform  # noqa: E402

MODES = ["center", "squash", "border"]
PHOTO = read_photo(photo_paths()[0], pixels=160)
INTERPOLATIONS = ["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]


def make_image(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Smooth ground with noise on it: edges and flat parts, and all values of a byte."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 255, width)[None, :, None] * np.linspace(0, 1, height)[:, None, None]
    pixels = np.where(rng.random((height, width, 1)) < 0.5, ramp, rng.integers(0, 256, (height, width, 3)))
    image = Image.fromarray(pixels.astype(np.uint8))
    return image if mode == "RGB" else image.convert(mode)


def timms(image: Image.Image, spec: ModelSpec, normalize: bool) -> np.ndarray:
    transform = create_transform(
        input_size=(spec.channels, spec.height, spec.width),
        is_training=False,
        interpolation=spec.interpolation,
        mean=spec.mean,
        std=spec.std,
        crop_pct=spec.crop_pct,
        crop_mode=spec.crop_mode,
        normalize=normalize,
    )
    return np.asarray(transform(image.convert("RGB")))


def assert_same(image: Image.Image, spec: ModelSpec) -> None:
    pixels_HWC = resize_and_crop(image, spec)
    assert pixels_HWC.dtype == np.uint8
    assert pixels_HWC.shape == (spec.height, spec.width, 3)
    np.testing.assert_array_equal(pixels_HWC.transpose(2, 0, 1), timms(image, spec, normalize=False))
    value_CHW = preprocess(image, spec)
    assert value_CHW.dtype == np.float32
    assert value_CHW.flags.c_contiguous
    np.testing.assert_array_equal(value_CHW, timms(image, spec, normalize=True))


@settings(max_examples=examples(150), deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    target=st.tuples(st.integers(4, 48), st.integers(4, 48)) | st.integers(4, 48).map(lambda side: (side, side)),
    crop_pct=st.floats(0.3, 1.3) | st.sampled_from([0.875, 0.9, 0.95, 1.0]),
    mode=st.sampled_from(MODES),
    interpolation=st.sampled_from(INTERPOLATIONS),
    mean=st.tuples(*[st.floats(0, 1)] * 3),
    std=st.tuples(*[st.floats(0.05, 1)] * 3),
    seed=st.integers(0, 9),
)
def test_equals_timm_pixel_by_pixel(
    make_spec: Callable[..., ModelSpec], width, height, target, crop_pct, mode, interpolation, mean, std, seed
) -> None:
    spec = make_spec(
        height=target[0],
        width=target[1],
        crop_pct=crop_pct,
        crop_mode=mode,
        interpolation=interpolation,
        mean=mean,
        std=std,
    )
    image = make_image(width, height, seed)
    try:
        assert_same(image, spec)
    except DataError:
        # A side of no pixels: Pillow refuses it within timm.
        with pytest.raises(ValueError, match="must be > 0"):
            timms(image, spec, normalize=False)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("target", [(32, 32), (33, 32), (24, 48)])
def test_every_mode_and_interpolation(
    make_spec: Callable[..., ModelSpec], mode: str, interpolation: str, target: tuple[int, int]
) -> None:
    spec = make_spec(height=target[0], width=target[1], crop_mode=mode, interpolation=interpolation)
    for size in ((97, 61), (61, 97), (20, 20), (32, 32), (7, 50)):
        assert_same(make_image(*size), spec)


@pytest.mark.parametrize("mode", MODES)
def test_the_size_of_real_models(make_spec: Callable[..., ModelSpec], mode: str) -> None:
    spec = make_spec(height=224, width=224, crop_pct=0.875, crop_mode=mode)
    assert_same(make_image(500, 375), spec)


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_photo_in_every_mode(make_spec: Callable[..., ModelSpec], kind: str) -> None:
    content = FILES[kind](PHOTO)
    for mode in MODES:
        for height, width in ((64, 64), (48, 66)):
            spec = make_spec(height=height, width=width, crop_mode=mode)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, within timm, that transparency gets lost
                theirs = Image.open(io.BytesIO(content)).convert("RGB")
            assert_same(theirs, spec)
            pixels_HWC = resize_and_crop(theirs, spec)
            np.testing.assert_array_equal(resize_and_crop(open_image(content), spec), pixels_HWC)
            np.testing.assert_array_equal(resize_and_crop(Image.open(io.BytesIO(content)), spec), pixels_HWC)


@pytest.mark.parametrize("kind", CUT_OFF)
def test_what_would_be_cut_off_is_refused(make_spec: Callable[..., ModelSpec], kind: str) -> None:
    with pytest.raises(UnreadableImage, match="not all whole numbers from 0 to 255"):
        preprocess(Image.open(io.BytesIO(CUT_OFF[kind](PHOTO))), make_spec(height=32, width=32))


def test_padding_is_black_in_the_middle_modes_and_the_mean_in_border(make_spec: Callable[..., ModelSpec]) -> None:
    image = Image.new("RGB", (40, 40), (255, 255, 255))
    small = {"height": 32, "width": 32, "crop_pct": 2.0, "mean": (0.5, 0.25, 0.0)}
    assert resize_and_crop(image, make_spec(**small))[0, 0].tolist() == [0, 0, 0]
    assert resize_and_crop(image, make_spec(**small, crop_mode="border"))[0, 0].tolist() == [128, 64, 0]


def test_the_image_is_left_as_it_is(make_spec: Callable[..., ModelSpec]) -> None:
    image = make_image(32, 32)
    before = image.tobytes()
    pixels_HWC = resize_and_crop(image, make_spec(height=32, width=32, crop_pct=1.0))
    pixels_HWC[:] = 0
    assert image.tobytes() == before


def test_batch(make_spec: Callable[..., ModelSpec]) -> None:
    spec = make_spec(height=24, width=32)
    images = [make_image(50, 40, seed, mode) for seed, mode in enumerate(["RGB", "L", "RGBA"])]
    input_BCHW = preprocess_batch(images, spec)
    assert input_BCHW.shape == (3, 3, 24, 32)
    assert input_BCHW.dtype == np.float32
    for value_CHW, image in zip(input_BCHW, images, strict=True):
        np.testing.assert_array_equal(value_CHW, preprocess(image, spec))
    with pytest.raises(DataError, match="no images"):
        preprocess_batch([], spec)


def test_a_sliver_is_named(make_spec: Callable[..., ModelSpec]) -> None:
    spec = make_spec(height=32, width=32, crop_mode="border")
    with pytest.raises(DataError, match=r"1x300 pixels cannot become 32x32 with crop_mode border"):
        resize_and_crop(make_image(1, 300), spec)


def test_what_would_fill_the_memory_is_named(
    make_spec: Callable[..., ModelSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(height=32, width=32, crop_pct=1.0)
    with pytest.raises(DataError, match=r"1x1000000 pixels .* it would be resized to 32x32000000\.") as caught:
        resize_and_crop(Image.new("RGB", (1, 1_000_000)), spec)
    assert "Leave the image out" in str(caught.value)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 320 // 2)
    assert_same(make_image(3, 30), spec)
    with pytest.raises(DataError, match="resized to 32x330"):
        resize_and_crop(make_image(3, 31), spec)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert_same(make_image(3, 31), spec)


def test_what_the_graph_normalises_stays_bytes_and_any_layout_is_the_same_image(
    make_spec: Callable[..., ModelSpec],
) -> None:
    images = [make_image(50, 40, seed) for seed in range(2)]
    size = {"height": 24, "width": 32}
    plain_BCHW = preprocess_batch(images, make_spec(**size))
    last_BHWC = preprocess_batch(images, make_spec(**size, input_layout="NHWC"))
    np.testing.assert_array_equal(last_BHWC.transpose(0, 3, 1, 2), plain_BCHW)
    bytes_BCHW = preprocess_batch(images, make_spec(**size, input_dtype="uint8"))
    bytes_BHWC = preprocess_batch(images, make_spec(**size, input_dtype="uint8", input_layout="NHWC"))
    assert bytes_BCHW.dtype == bytes_BHWC.dtype == np.uint8
    assert bytes_BCHW.flags.c_contiguous
    np.testing.assert_array_equal(bytes_BHWC.transpose(0, 3, 1, 2), bytes_BCHW)
    np.testing.assert_array_equal(bytes_BHWC[0], resize_and_crop(images[0], make_spec(**size)))
