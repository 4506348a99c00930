from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from dskd_compress.data.resample import enlarge_taps, resample, shift_taps

PILLOW = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


def chw(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize("interpolation", PILLOW)
@pytest.mark.parametrize("size", [(32, 32), (23, 40)])
def test_crops_are_pillows_bit_for_bit(interpolation: str, size: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    count, (height, width) = 200, size
    pixels = generator.integers(0, 256, (count, height, width, 3), np.uint8)
    pixels[::2] = np.where(pixels[::2] > 127, 255, 0)  # overshoots
    high = generator.integers(1, height + 1, count)
    wide = generator.integers(1, width + 1, count)
    high[:3], wide[:3] = height, width
    top, left = generator.integers(0, height - high + 1), generator.integers(0, width - wide + 1)
    flips = generator.random((2, count)) < 0.5
    result = resample(
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        enlarge_taps(top, high, height, flips[0], interpolation),
        enlarge_taps(left, wide, width, flips[1], interpolation),
    )
    for index in range(count):
        box = left[index], top[index], left[index] + wide[index], top[index] + high[index]
        expected = Image.fromarray(pixels[index]).crop(box).resize((width, height), PILLOW[interpolation])
        if flips[0, index]:
            expected = expected.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        if flips[1, index]:
            expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        assert torch.equal(result[index], chw(expected)), index


def test_shift_is_a_crop_of_the_padded_image() -> None:
    from torchvision.transforms import functional

    pixels = np.random.default_rng(0).integers(1, 256, (81, 12, 10, 3), np.uint8)
    rows, columns = np.divmod(np.arange(81), 9)
    no_flip = np.zeros(81, bool)
    result = resample(
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        shift_taps(rows - 4, 12, no_flip),
        shift_taps(columns - 4, 10, no_flip),
    )
    for index in range(81):
        padded = functional.pad(Image.fromarray(pixels[index]), 4)
        expected = functional.crop(padded, int(rows[index]), int(columns[index]), 12, 10)
        assert torch.equal(result[index], chw(expected))


def test_large_batches_are_worked_off_in_parts() -> None:
    images = torch.randint(0, 256, (9, 3, 256, 256), dtype=torch.uint8)
    start, size, flip = np.arange(9), np.full(9, 200), np.arange(9) % 2 == 0
    taps = enlarge_taps(start, size, 256, flip, "bilinear")
    whole = resample(images, taps, taps)
    assert whole.is_contiguous()
    for index in range(9):
        part = slice(index, index + 1)
        assert torch.equal(resample(images[part], taps.of(part), taps.of(part)), whole[part])
