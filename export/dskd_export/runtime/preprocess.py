"""Images to model input with Pillow and numpy alone, equal to timm's evaluation transform.

Follows `timm.data.transforms_factory.transforms_imagenet_eval` (timm 1.0.31) step by step, down
to its roundings, so that a device without torch feeds the model what it was trained on. Equal to the
last bit under the same Pillow; version 13 resizes tall images in another order of passes than those
before it did, which is seen in the crop modes squash and border.
Shape suffixes: B images, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dskd_export.errors import DataError
from dskd_export.runtime.images import to_rgb
from dskd_export.runtime.runner import Array
from dskd_export.spec import ModelSpec

_BLACK = (0, 0, 0)


def resize_and_crop(image: Image.Image, spec: ModelSpec) -> NDArray[np.uint8]:
    """An image of any mode and size as uint8 RGB [H, W, C] of the model's size, before normalisation.

    Where the spec says so it is turned upright first, by the metadata that `open_image` and Pillow keep with it.

    Args:
        image: from `open_image`, or any other; `to_rgb` says what becomes of its mode.
        spec: of the model.

    Raises:
        UnreadableImage: it cannot be decoded or is not to be had as RGB.
        DataError: it is so narrow that one side would shrink to nothing, or the other would grow beyond
            what Pillow takes for a decompression bomb; names the size and what to change.
    """
    image = to_rgb(image, exif=spec.exif)
    fill = _BLACK
    if spec.crop_mode == "border":
        red, green, blue = (round(255 * value) for value in spec.mean)
        fill = (red, green, blue)
    height, width = _fit_size(image.height, image.width, spec)
    _refuse_slivers(image, height, width, spec)
    if (height, width) != (image.height, image.width):
        image = image.resize((width, height), Image.Resampling[spec.interpolation.upper()])
    return np.array(_crop_or_pad(image, spec.height, spec.width, fill), dtype=np.uint8)


def preprocess(image: Image.Image, spec: ModelSpec) -> Array:
    """One image as the model's input: resized, cropped, then as `model_input`.

    Raises:
        UnreadableImage, DataError: as `resize_and_crop`.
    """
    return model_input(resize_and_crop(image, spec), spec)


def model_input(pixels_HWC: NDArray[np.uint8], spec: ModelSpec) -> Array:
    """Pixels [H, W, C] of the model's size in the type and layout of its input, [C, H, W] or [H, W, C].

    Normalised to float32, but for a model that normalises bytes itself: that gets them as they are.
    """
    planes = spec.input_layout == "NCHW"
    pixels: Array = np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1)) if planes else pixels_HWC
    if spec.input_dtype == "uint8":
        return pixels
    shape = (spec.channels, 1, 1) if planes else (spec.channels,)
    # float32 and division at every step, as torch does it: another order gives other last bits.
    # In whole planes where there are any: numpy is slow along a last axis of three.
    value: NDArray[np.float32] = pixels.astype(np.float32)
    value /= np.float32(255)
    value -= np.array(spec.mean, dtype=np.float32).reshape(shape)
    value /= np.array(spec.std, dtype=np.float32).reshape(shape)
    return value


def pixels_from_input(input_CHW: Array, spec: ModelSpec) -> NDArray[np.uint8]:
    """Undo `model_input`: an input [C, H, W] or [H, W, C] back to RGB pixels [H, W, 3]."""
    rows = input_CHW if spec.input_layout == "NHWC" else input_CHW.transpose(1, 2, 0)
    if spec.input_dtype == "uint8":
        return np.ascontiguousarray(rows, dtype=np.uint8)
    shares = rows.astype(np.float64) * np.array(spec.std) + np.array(spec.mean)
    pixels: NDArray[np.uint8] = np.clip(np.rint(255 * shares), 0, 255).astype(np.uint8)
    return pixels


def preprocess_batch(images: Sequence[Image.Image], spec: ModelSpec) -> Array:
    """Images as one batch in the type and layout of the model's input.

    Raises:
        UnreadableImage, DataError: there are no images, or as `resize_and_crop`.
    """
    if not images:
        raise DataError("There are no images to preprocess.", "Choose a data set that holds images.")
    return np.stack([preprocess(image, spec) for image in images])


def _fit_size(height: int, width: int, spec: ModelSpec) -> tuple[int, int]:
    """Size in pixels, height and width, that the image has before it is cropped."""
    target_height, target_width = (math.floor(side / spec.crop_pct) for side in (spec.height, spec.width))
    if spec.crop_mode == "squash":
        return target_height, target_width
    if spec.crop_mode == "center" and target_height == target_width:
        # The shorter side becomes the target, the longer one is truncated (torchvision's Resize).
        longer = int(target_height * max(height, width) / min(height, width))
        return (target_height, longer) if height <= width else (longer, target_height)
    # Both sides by one ratio, rounded half to even (timm's ResizeKeepRatio): the image covers
    # the target in mode center, and lies within it in mode border.
    ratios = height / target_height, width / target_width
    ratio = max(ratios) if spec.crop_mode == "border" else min(ratios)
    return round(height / ratio), round(width / ratio)


def _refuse_slivers(image: Image.Image, height: int, width: int, spec: ModelSpec) -> None:
    """Refuse what Pillow cannot resize to, and what would take all of the memory to be cropped to a stamp."""
    limit = math.inf if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS
    if height and width and height * width <= limit:
        return
    fate = f"it would be resized to {width}x{height}" if height and width else "one side shrinks to nothing"
    raise DataError(
        f"An image of {image.width}x{image.height} pixels cannot become {spec.width}x{spec.height} with "
        f"crop_mode {spec.crop_mode} and crop_pct {spec.crop_pct:g}: {fate}.",
        "Leave the image out, or export with another data.crop_mode or data.crop_pct.",
    )


def _crop_or_pad(image: Image.Image, height: int, width: int, fill: tuple[int, int, int]) -> Image.Image:
    """The middle of an image; a side that is too short is padded first, the odd pixel at its end."""
    if image.height < height or image.width < width:
        size = max(image.width, width), max(image.height, height)
        canvas = Image.new("RGB", size, fill)
        canvas.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
        image = canvas
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))
