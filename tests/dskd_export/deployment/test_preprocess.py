"""The generated C++ preprocessing against Pillow and numpy, bit by bit."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import PIL
import pytest
from bundle_support import make_spec
from deployment_support import run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis_support import examples
from PIL import Image

from dskd_export.deployment.cpp import SOURCES
from dskd_export.deployment.render import read_static
from dskd_export.errors import DataError
from dskd_export.runtime.preprocess import preprocess, resize_and_crop
from dskd_export.spec import CropMode, Interpolation, ModelSpec

FILTERS, CROP_MODES = get_args(Interpolation), get_args(CropMode)
ORDER_OF_FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
ORDER_OF_MODES = ("center", "squash", "border")
HERE = int(PIL.__version__.split(".")[0])

Call = Callable[..., bytes | None]


@pytest.fixture(scope="module")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> Call:
    """Image [H, W, 3], spec -> bytes of the input; None where the program refuses the image."""
    folder = tmp_path_factory.mktemp("cpp")
    (folder / "src").mkdir()
    for name in SOURCES:
        (folder / name).write_bytes(read_static(f"cpp/{name}"))
    driver = Path(__file__).parent / "preprocess_driver.cpp"
    sources = [str(driver), "src/preprocess.cpp", "src/resize.cpp"]
    flags = ("-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-shared", "-fPIC", "-Isrc")
    done = run(["g++", *flags, *sources, "-o", "driver.so"], folder)
    assert done.returncode == 0, done.stderr
    library = ctypes.CDLL(str(folder / "driver.so"))
    library.preprocess_image.restype = ctypes.c_long

    def call(pixels: np.ndarray, spec: ModelSpec, pillow_major: int = HERE) -> bytes | None:
        pixels = np.ascontiguousarray(pixels)
        out = np.empty(spec.height * spec.width * 3 * (1 if spec.input_dtype == "uint8" else 4), np.uint8)
        mean, std = (np.array(values, np.float64) for values in (spec.mean, spec.std))
        size = library.preprocess_image(
            *(pixels.ctypes.data_as(ctypes.c_void_p), pixels.shape[1], pixels.shape[0], spec.width, spec.height),
            *(mean.ctypes.data_as(ctypes.c_void_p), std.ctypes.data_as(ctypes.c_void_p)),
            *(ORDER_OF_FILTERS.index(spec.interpolation), ctypes.c_double(spec.crop_pct)),
            ORDER_OF_MODES.index(spec.crop_mode),
            *(int(spec.input_dtype == "uint8"), int(spec.input_layout == "NHWC"), pillow_major),
            out.ctypes.data_as(ctypes.c_void_p),
        )
        if size < 0:
            return None
        assert size == len(out)
        return out.tobytes()

    return call


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_names_are_all_there() -> None:
    header = read_static("cpp/src/resize.h").decode() + read_static("cpp/src/preprocess.h").decode()
    assert f"enum class Filter {{ {', '.join(ORDER_OF_FILTERS)} }};" in header
    assert f"enum class CropMode {{ {', '.join(ORDER_OF_MODES)} }};" in header
    assert set(FILTERS) == set(ORDER_OF_FILTERS)
    assert set(CROP_MODES) == set(ORDER_OF_MODES)


@pytest.mark.parametrize("crop_mode", CROP_MODES)
@pytest.mark.parametrize("interpolation", FILTERS)
def test_every_filter_and_crop(cpp: Call, interpolation: str, crop_mode: str) -> None:
    for index, (height, width) in enumerate([(40, 61), (97, 33), (24, 24), (9, 200), (160, 7)]):
        for target in ((24, 24), (21, 32)):
            spec = make_spec(
                height=target[0],
                width=target[1],
                interpolation=interpolation,
                crop_mode=crop_mode,
                crop_pct=(0.875, 1.0)[index % 2],
            )
            pixels = noise(height, width, index)
            assert cpp(pixels, spec) == preprocess(Image.fromarray(pixels), spec).tobytes(), (
                height,
                width,
                target,
            )


@settings(deadline=None, max_examples=examples(150))
@given(data=st.data())
def test_any_image_and_spec(cpp: Call, data: Any) -> None:
    side, target = st.integers(1, 90), st.integers(4, 60)
    spec = make_spec(
        height=data.draw(target),
        width=data.draw(target),
        interpolation=data.draw(st.sampled_from(FILTERS)),
        crop_mode=data.draw(st.sampled_from(CROP_MODES)),
        crop_pct=data.draw(st.floats(0.3, 1.5)),
        input_dtype=data.draw(st.sampled_from(["float32", "uint8"])),
        input_layout=data.draw(st.sampled_from(["NCHW", "NHWC"])),
        mean=tuple(data.draw(st.floats(0, 1)) for _ in range(3)),
        std=tuple(data.draw(st.floats(0.05, 1)) for _ in range(3)),
    )
    pixels = noise(data.draw(side), data.draw(side), data.draw(st.integers(0, 5)))
    try:
        expected = preprocess(Image.fromarray(pixels), spec).tobytes()
    except DataError:
        expected = None
    assert cpp(pixels, spec) == expected


def test_the_order_of_passes_is_that_of_the_pillow_of_the_export(cpp: Call) -> None:
    """A resize along one axis has no order; two of them give either."""
    spec = make_spec(
        height=20, width=30, crop_mode="squash", crop_pct=1.0, input_dtype="uint8", input_layout="NHWC"
    )
    pixels = noise(211, 47)
    image = Image.fromarray(pixels)
    columns_first = image.resize((30, 211), Image.Resampling.BICUBIC).resize((30, 20), Image.Resampling.BICUBIC)
    rows_first = image.resize((47, 20), Image.Resampling.BICUBIC).resize((30, 20), Image.Resampling.BICUBIC)
    assert np.asarray(columns_first).tobytes() != np.asarray(rows_first).tobytes()
    assert cpp(pixels, spec, 12) == np.asarray(columns_first).tobytes()
    assert cpp(pixels, spec, 13) == np.asarray(rows_first).tobytes()
    # Where few rows go, both versions begin with the columns.
    pixels = noise(40, 47)
    assert cpp(pixels, spec, 12) == cpp(pixels, spec, 13)


def test_a_sliver_is_refused_by_both(cpp: Call) -> None:
    spec = make_spec(height=24, width=24, crop_mode="border", crop_pct=1.0)
    pixels = noise(400, 3)
    with pytest.raises(DataError):
        resize_and_crop(Image.fromarray(pixels), spec)
    assert cpp(pixels, spec) is None
