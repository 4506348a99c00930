"""Crops, enlargements and flips of whole batches, bit for bit what Pillow does to one image.

Resampling is separable: every output column is a weighted sum of a few input columns (its taps), then
every output row of a few rows. As in Pillow, weights have 22 fractional bits and each pass is rounded
to 8 bits. Integers give the same pixels on every device.

Shape suffixes: B batch, C channels, H height, W width, L an axis, X the other one, O outputs along an axis,
T taps, N = B x O.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

_BITS = 22  # Pillow's PRECISION_BITS: 8 bits of pixel and 2 of overshoot fit into an int32 with them
_ONE = 1 << _BITS
_CPU_VALUES = 1 << 19  # done at once, so that a CPU's cache holds the intermediate sums: up to 7 times as fast


class Taps(NamedTuple):
    """Where each output of an axis takes its value from."""

    index_BOT: NDArray[np.int64]  # places along the input axis
    weight_BOT: NDArray[np.int32]  # in units of 2^-22

    def of(self, part: slice) -> Taps:
        """Those of some of the images."""
        return Taps(self.index_BOT[part], self.weight_BOT[part])


class Filter(NamedTuple):
    """A resampling kernel."""

    support: int  # it is 0 from here on, in input pixels
    kernel: Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(x) < 1, 1 - np.abs(x), 0.0)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution with a = -1/2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


FILTERS = {"bilinear": Filter(1, _triangle), "bicubic": Filter(2, _cubic), "lanczos": Filter(3, _lanczos)}


def shift_taps(start_B: NDArray[np.int64], length: int, flip_B: NDArray[np.bool_]) -> Taps:
    """Taps of a window of the input's own length, black where it lies outside.

    Args:
        start_B: first place of the window; may be negative.
        flip_B: whether the window is turned round.
    """
    index_BO = start_B[:, None] + np.arange(length)
    inside_BO = (index_BO >= 0) & (index_BO < length)
    weight_BO = np.where(inside_BO, _ONE, 0).astype(np.int32)
    return _flip(Taps(np.clip(index_BO, 0, length - 1)[..., None], weight_BO[..., None]), flip_B)


def enlarge_taps(
    start_B: NDArray[np.int64],
    size_B: NDArray[np.int64],
    length: int,
    flip_B: NDArray[np.bool_],
    interpolation: str,
) -> Taps:
    """Taps of a window that is enlarged to the input's length.

    Args:
        start_B: first place of the window.
        size_B: its length, 1 to `length`: a reduction would need more taps.
        length: of the axis, in and out.
        flip_B: whether the result is turned round.
        interpolation: bilinear, bicubic, lanczos or nearest.
    """
    scale_B1 = (size_B / length)[:, None]
    if interpolation == "nearest":
        # Pillow adds the step up instead of multiplying it; the last bit decides at the border of a pixel.
        steps_BO = np.repeat(scale_B1, length, axis=1)
        steps_BO[:, 0] *= 0.5
        index_BO = start_B[:, None] + np.cumsum(steps_BO, axis=1).astype(np.int64)
        weight_BO1 = np.full((*index_BO.shape, 1), _ONE, np.int32)
        return _flip(Taps(index_BO[..., None], weight_BO1), flip_B)
    support, kernel = FILTERS[interpolation]
    center_BO = (np.arange(length) + 0.5) * scale_B1
    # Pillow's bounds, which cut a kernel off where the window ends, and normalise what is left of it.
    first_BO = np.maximum((center_BO - support + 0.5).astype(np.int64), 0)
    end_BO = np.minimum((center_BO + support + 0.5).astype(np.int64), size_B[:, None])
    place_BOT = first_BO[..., None] + np.arange(2 * support)
    inside_BOT = place_BOT < end_BO[..., None]
    weight_BOT = np.where(inside_BOT, kernel(place_BOT - center_BO[..., None] + 0.5), 0.0)
    weight_BOT /= weight_BOT.sum(2, keepdims=True)
    rounded_BOT = np.trunc(weight_BOT * _ONE + np.copysign(0.5, weight_BOT)).astype(np.int32)
    index_BOT = start_B[:, None, None] + np.minimum(place_BOT, (size_B - 1)[:, None, None])
    return _flip(Taps(index_BOT, rounded_BOT), flip_B)


def resample(images_BCHW: torch.Tensor, rows: Taps, columns: Taps) -> torch.Tensor:
    """Apply taps to both axes, columns first as Pillow does.

    Args:
        images_BCHW: uint8.

    Returns:
        uint8 [B, C, H, W].
    """
    at_once = len(images_BCHW)
    if images_BCHW.device.type == "cpu":
        at_once = max(_CPU_VALUES // images_BCHW[0].numel(), 1)
    parts = [slice(start, start + at_once) for start in range(0, len(images_BCHW), at_once)]
    return torch.cat([_resample(images_BCHW[part], rows.of(part), columns.of(part)) for part in parts])


def _resample(images_BCHW: torch.Tensor, rows: Taps, columns: Taps) -> torch.Tensor:
    wide_BWCH = _apply_taps(images_BCHW.permute(0, 3, 1, 2), columns)
    high_BHCW = _apply_taps(wide_BWCH.permute(0, 3, 2, 1), rows)
    return high_BHCW.permute(0, 2, 1, 3).contiguous()


def _flip(taps: Taps, flip_B: NDArray[np.bool_]) -> Taps:
    return Taps(*(np.where(flip_B[:, None, None], part[:, ::-1], part) for part in taps))


def _apply_taps(images_BLCX: torch.Tensor, taps: Taps) -> torch.Tensor:
    """Weighted sums along the second axis; as the outer one of an image it is gathered in whole lines."""
    device, (batch, length, channels, across) = images_BLCX.device, images_BLCX.shape
    outputs, count = taps.index_BOT.shape[1:]
    lines_LX = images_BLCX.reshape(batch * length, channels * across)
    line_TN = (taps.index_BOT + np.arange(batch)[:, None, None] * length).reshape(-1, count).T
    index_TN = torch.from_numpy(np.ascontiguousarray(line_TN)).to(device)
    weight_TN1 = torch.from_numpy(np.ascontiguousarray(taps.weight_BOT.reshape(-1, count, 1).swapaxes(0, 1))).to(
        device
    )
    if count == 1:  # weights are 0 or 1: there is nothing to round
        result = lines_LX.index_select(0, index_TN[0]).mul_((weight_TN1[0] >> _BITS).to(torch.uint8))
    else:
        total = torch.full((batch * outputs, channels * across), _ONE // 2, dtype=torch.int32, device=device)
        for index_N, weight_N1 in zip(index_TN, weight_TN1, strict=True):
            total += lines_LX.index_select(0, index_N).to(torch.int32).mul_(weight_N1)
        result = (total >> _BITS).clamp_(0, 255).to(torch.uint8)
    return result.view(batch, outputs, channels, across)
