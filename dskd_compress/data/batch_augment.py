"""Augmentation of whole batches of equally large images, on whatever device they lie.

Each image's random numbers come from a counter: no state, no order, no device. The generator is SplitMix64
(Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): the output is a bijective mixing
of a counter that rises by an odd constant. Every (seed, view, index) starts its own counter.

Shape suffixes: B batch, C channels, H height, W width, A attempts, D draws.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dskd_compress.config import AugmentSection
from dskd_compress.data.resample import FILTERS, enlarge_taps, resample, shift_taps
from dskd_export.errors import RecipeError

_ATTEMPTS = 10  # of torchvision's and timm's random resized crop, before it takes the middle
_DRAWS = 4 + 2 * _ATTEMPTS  # flips, place, and two an attempt
_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # the odd number nearest to 2^64 / golden ratio
_MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class Boxes(NamedTuple):
    """Crops in pixels, int64 [B] each."""

    top_B: NDArray[np.int64]
    left_B: NDArray[np.int64]
    height_B: NDArray[np.int64]
    width_B: NDArray[np.int64]


class BatchAugment:
    """uint8 batches -> uint8 batches; what an image becomes depends on (seed, view, index) alone."""

    def __init__(self, augment: AugmentSection, interpolation: str, seed: int) -> None:
        """Prepare.

        Args:
            augment: the recipe's `data.augment`; mixing and erasing are not done here.
            interpolation: of the resized crop: bilinear, bicubic, lanczos or nearest.

        Raises:
            RecipeError: a policy or colour jitter, which exist for single images only.
        """
        for key, wanted in (("auto_augment", augment.auto_augment), ("color_jitter", augment.color_jitter)):
            if wanted:
                raise RecipeError(
                    f"data.augment.{key}: resident images are augmented by the batch, which has no {key}.",
                    f"Leave data.augment.{key} out, or set data.loader=workers.",
                )
        if interpolation not in (*FILTERS, "nearest"):
            raise RecipeError(
                f"data.interpolation: resident images cannot be resampled with '{interpolation}'.",
                f"Use {', '.join(FILTERS)} or nearest, or set data.loader=workers.",
            )
        self.augment = augment
        self.interpolation = interpolation
        self.seed = seed

    def __call__(self, images_BCHW: torch.Tensor, keys_B2: NDArray[np.int64]) -> torch.Tensor:
        """Crop and flip.

        Args:
            images_BCHW: uint8.
            keys_B2: int64 [B, 2], (view, index) of each.
        """
        height, width = images_BCHW.shape[2:]
        draws_BD = draw_uniform(self.seed, keys_B2, _DRAWS)
        vflip_B, hflip_B = draws_BD[:, 0] < self.augment.vflip, draws_BD[:, 1] < self.augment.hflip
        place_B2, attempts_B2A = draws_BD[:, 2:4], draws_BD[:, 4:].reshape(-1, 2, _ATTEMPTS)
        if self.augment.crop == "pad":
            start_B2 = (place_B2 * (2 * self.augment.pad + 1)).astype(np.int64) - self.augment.pad
            rows = shift_taps(start_B2[:, 0], height, vflip_B)
            columns = shift_taps(start_B2[:, 1], width, hflip_B)
        else:
            boxes = crop_boxes(place_B2, attempts_B2A, (height, width), self.augment.scale, self.augment.ratio)
            rows = enlarge_taps(boxes.top_B, boxes.height_B, height, vflip_B, self.interpolation)
            columns = enlarge_taps(boxes.left_B, boxes.width_B, width, hflip_B, self.interpolation)
        return resample(images_BCHW, rows, columns)


def crop_boxes(
    place_B2: NDArray[np.float64],
    attempts_B2A: NDArray[np.float64],
    size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Boxes:
    """Choose the random resized crops of a batch, with the rule of torchvision and timm.

    An attempt draws an area, uniform in `scale`, and an aspect ratio, uniform in its logarithm; the first
    one that fits in the image is taken, and where none does, the middle of the image.

    Args:
        place_B2: uniform draws in [0, 1) for top and left.
        attempts_B2A: uniform draws for area and ratio.
        size: height and width of the images in pixels.
        scale: range of the crop's area as a share of the image.
        ratio: range of width / height.
    """
    height, width = size
    area_BA = (scale[0] + attempts_B2A[:, 0] * (scale[1] - scale[0])) * (height * width)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratio_BA = np.exp(low + attempts_B2A[:, 1] * (high - low))
    sizes_BA2 = np.rint(np.sqrt(np.stack([area_BA / ratio_BA, area_BA * ratio_BA], axis=2))).astype(np.int64)
    sizes_BA2 = np.maximum(sizes_BA2, 1)
    fits_BA: NDArray[np.bool_] = (sizes_BA2[..., 0] <= height) & (sizes_BA2[..., 1] <= width)
    chosen_B2 = sizes_BA2[np.arange(len(fits_BA)), fits_BA.argmax(1)]
    start_B2 = (place_B2 * (np.array(size) - chosen_B2 + 1)).astype(np.int64)
    whole_ratio = min(max(width / height, ratio[0]), ratio[1])
    middle = np.array(
        [min(max(round(width / whole_ratio), 1), height), min(max(round(height * whole_ratio), 1), width)]
    )
    none_B1 = ~fits_BA.any(axis=1, keepdims=True)
    chosen_B2 = np.where(none_B1, middle, chosen_B2)
    start_B2 = np.where(none_B1, (np.array(size) - middle) // 2, start_B2)
    return Boxes(start_B2[:, 0], start_B2[:, 1], chosen_B2[:, 0], chosen_B2[:, 1])


def draw_uniform(seed: int, keys_B2: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Draw `count` numbers for every image.

    Args:
        keys_B2: int64 [B, 2], (view, index); views may be negative.

    Returns:
        float64 [B, D], uniform in [0, 1), multiples of 2^-53.
    """
    start_B = _mix(np.full(len(keys_B2), seed, np.int64).astype(np.uint64))
    for part_B in keys_B2.T:
        start_B = _mix(start_B + _GAMMA ^ part_B.astype(np.uint64))
    steps_D = np.arange(1, count + 1, dtype=np.uint64) * _GAMMA
    bits_BD = _mix(start_B[:, None] + steps_D) >> np.uint64(11)
    return bits_BD.astype(np.float64) * np.float64(2.0**-53)


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * _MULTIPLIERS[0]
    value = (value ^ (value >> np.uint64(27))) * _MULTIPLIERS[1]
    return value ^ (value >> np.uint64(31))
