"""Draw golden images of a bundle."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dskd_export.bundle.golden import Golden
from dskd_export.errors import DataError
from dskd_export.files.bounded import read_bounded
from dskd_export.report.blocks import Picture
from dskd_export.spec import ModelSpec

_SIDE = 96  # pixels on the page
_MOST = 4  # of one class
_MAX_BYTES = 256 << 20


def golden_of(bundle: Path, spec: ModelSpec) -> Golden | None:
    """Read the bundle's golden images; None where they are missing or belong to another model."""
    try:
        return Golden.from_bytes(read_bounded(bundle / "golden.npz", _MAX_BYTES), spec, "golden.npz")
    except (DataError, OSError):
        return None


def pictures_of(golden: Golden, spec: ModelSpec, name: str) -> list[Picture]:
    """Draw a few golden images of a class, as the model gets them, with the reference's answer to each.

    Args:
        golden: images and logits.
        spec: how the images were prepared.
        name: of the class.
    """
    label = spec.classes.index(name) if name in spec.classes else -1
    found = np.flatnonzero(golden.labels == label)[:_MOST]
    taken_for = [spec.classes[int(golden.logits[index].argmax())] for index in found]
    return [
        Picture(
            _png(pixels_of(golden.input[index], spec)),
            f"image of {name}, classified as {other}",
        )
        for index, other in zip(found, taken_for, strict=True)
    ]


def pixels_of(image: NDArray[Any], spec: ModelSpec) -> NDArray[np.uint8]:
    """Undo the normalisation of an input [C, H, W] or [H, W, C]: RGB pixels [H, W, 3]."""
    rows = image if spec.input_layout == "NHWC" else image.transpose(1, 2, 0)
    if spec.input_dtype == "uint8":
        return np.ascontiguousarray(rows, dtype=np.uint8)
    shares = rows.astype(np.float64) * np.array(spec.std) + np.array(spec.mean)
    pixels: NDArray[np.uint8] = np.clip(np.rint(255 * shares), 0, 255).astype(np.uint8)
    return pixels


def _png(pixels: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
