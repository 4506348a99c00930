from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from dskd_compress.config import AugmentSection
from dskd_compress.data.batch_augment import BatchAugment, crop_boxes, draw_uniform
from dskd_compress.timm_import import import_timm
from dskd_export.errors import RecipeError

import_timm()
from timm.data.transforms import RandomResizedCropAndInterpolation  # noqa: E402


def keys(count: int, view: int = 0) -> np.ndarray:
    return np.stack([np.full(count, view), np.arange(count)], axis=1)


@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [
        ((32, 32), (0.35, 1.0), (0.75, 1.3333)),
        ((24, 48), (0.08, 1.0), (0.75, 1.3333)),
        ((20, 60), (0.9, 1.0), (0.5, 1.0)),  # nothing fits: the middle of the image
        ((60, 20), (0.9, 1.0), (1.0, 2.0)),
    ],
)
def test_boxes_are_distributed_as_timms(size, scale, ratio) -> None:
    count = 4000
    draws = draw_uniform(0, keys(count), 22)
    ours = np.stack(crop_boxes(draws[:, :2], draws[:, 2:].reshape(-1, 2, 10), size, scale, ratio), axis=1)
    image = Image.new("RGB", (size[1], size[0]))
    random.seed(0)
    theirs = np.array([RandomResizedCropAndInterpolation.get_params(image, scale, ratio) for _ in range(count)])
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= size).all()
    if scale[0] == 0.9:
        assert (ours == theirs[0]).all()
        assert (theirs == theirs[0]).all()
        return
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    # What belongs together: area, and where in the image a crop of its size lies.
    assert stats.ks_2samp(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]).pvalue > 1e-3
    assert stats.ks_2samp(2 * ours[:, 0] + ours[:, 2], 2 * theirs[:, 0] + theirs[:, 2]).pvalue > 1e-3


def test_pad_crop_takes_every_place_as_often() -> None:
    images = torch.arange(1, 65).view(1, 1, 8, 8).expand(5000, 3, 8, 8).to(torch.uint8)
    result = BatchAugment(AugmentSection(crop="pad", pad=2, hflip=0.5), "bilinear", 0)(images, keys(5000))
    # The pixel (4, 4) is never at the border: its place tells the shift.
    found = (result[:, 0] == 37).nonzero()
    assert len(found) == 5000
    rows, columns = found[:, 1].numpy(), found[:, 2].numpy()
    assert np.unique(rows).tolist() == [2, 3, 4, 5, 6]
    assert stats.chisquare(np.bincount(rows)[2:]).pvalue > 1e-3
    flipped = result[:, 0].gather(2, torch.tensor(columns + 1).clamp(max=7).view(-1, 1, 1).expand(-1, 8, 1))
    right = flipped[torch.arange(5000), torch.tensor(rows), 0]
    assert abs((right == 36).float().mean().item() - 0.5) < 0.03
    assert np.unique(columns).tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("crop", ["pad", "resized"])
def test_an_image_does_not_depend_on_its_batch(crop: str) -> None:
    images = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8)
    augment = BatchAugment(AugmentSection(crop=crop, vflip=0.5), "bicubic", 7)
    whole = augment(images, keys(40, view=2))
    order = np.random.default_rng(0).permutation(40)
    assert torch.equal(augment(images[order], keys(40, view=2)[order]), whole[order])
    assert torch.equal(augment(images[3:4], keys(40, view=2)[3:4]), whole[3:4])
    assert not torch.equal(augment(images, keys(40, view=3)), whole)
    assert not torch.equal(BatchAugment(augment.augment, "bicubic", 8)(images, keys(40, view=2)), whole)


@pytest.mark.gpu
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_the_same_pixels_on_the_gpu(interpolation: str) -> None:
    images = torch.randint(0, 256, (300, 3, 48, 48), dtype=torch.uint8)
    for section in (AugmentSection(), AugmentSection(crop="pad")):
        augment = BatchAugment(section, interpolation, 0)
        assert torch.equal(augment(images.cuda(), keys(300)).cpu(), augment(images, keys(300)))


def test_refusals_name_the_key() -> None:
    for key, value in (("auto_augment", "rand-m9"), ("color_jitter", 0.4)):
        with pytest.raises(RecipeError, match=rf"data\.augment\.{key}"):
            BatchAugment(AugmentSection(**{key: value}), "bilinear", 0)
    with pytest.raises(RecipeError, match=r"data\.interpolation.*'box'"):
        BatchAugment(AugmentSection(), "box", 0)


MASK = (1 << 64) - 1


def mixed(value: int) -> int:
    """SplitMix64's output function, in Python's integers."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def test_splitmix64_published_sequence() -> None:
    """The first outputs of the reference implementation from the state 1234567."""
    gamma = 0x9E3779B97F4A7C15
    outputs = [mixed((1234567 + step * gamma) & MASK) for step in (1, 2, 3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_draws_are_a_counter_of_each_key() -> None:
    keys = np.array([[0, 0], [3, 17], [-1, 5], [2**40, 2**50]])
    draws = draw_uniform(42, keys, 5)
    for (view, index), row in zip(keys.tolist(), draws, strict=True):
        state = mixed(42)
        for part in (view, index):
            state = mixed(((state + 0x9E3779B97F4A7C15) & MASK) ^ (part & MASK))
        expected = [mixed((state + step * 0x9E3779B97F4A7C15) & MASK) >> 11 for step in range(1, 6)]
        assert (row * 2.0**53).astype(np.int64).tolist() == expected


def test_uniform_and_independent() -> None:
    keys = np.stack(np.meshgrid(np.arange(20), np.arange(1000)), axis=-1).reshape(-1, 2)
    draws = draw_uniform(0, keys, 4)
    assert draws.min() >= 0
    assert draws.max() < 1
    for column in draws.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    # Neighbours in every direction: draw, view, index, seed.
    grid = draws.reshape(1000, 20, 4)
    other = draw_uniform(1, keys, 4).reshape(1000, 20, 4)
    for one, two in (
        (grid[..., 0], grid[..., 1]),
        (grid[:, 1:, 0], grid[:, :-1, 0]),
        (grid[1:, :, 0], grid[:-1, :, 0]),
        (grid[..., 0], other[..., 0]),
    ):
        assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 4 / np.sqrt(one.size)
    assert len(np.unique(np.concatenate([draws.ravel(), other.ravel()]))) == 2 * draws.size
