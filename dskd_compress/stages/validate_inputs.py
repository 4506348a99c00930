"""The images of a validation, in lots: as timm prepares them and as the device does.

Each image is decoded once. A lot is prepared while the runners are busy with the one before.
Shape suffixes: B images of a lot, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dskd_compress.data import Normalise, Preprocessing, eval_transform
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.spec import ModelSpec

Item = TypeVar("Item")


@dataclass(frozen=True)
class Lot:
    """Some images of the validation set.

    Attributes:
        labels: int64 [B].
        of_timm: float32 [B, C, H, W], by timm's evaluation transform with the student's own settings.
        of_device: what the bundle's spec makes of the same images.
        differs: bool [B], images whose two inputs are not equal bit by bit.
        sha256: of each image's pixels, as the golden images are named.
    """

    labels: NDArray[np.int64]
    of_timm: NDArray[np.float32]
    of_device: NDArray[np.float32]
    differs: NDArray[np.bool_]
    sha256: tuple[str, ...]


def lots_of(
    images: Iterator[tuple[Image.Image, int, str]], preprocessing: Preprocessing, spec: ModelSpec, size: int
) -> Iterator[Lot]:
    """Prepare images, `size` at a time, the last lot with what is left."""
    to_uint8 = eval_transform(preprocessing, normalise=False)
    normalise = Normalise(preprocessing, torch.device("cpu"))
    while chunk := list(islice(images, size)):
        pixels_BCHW = np.stack([np.asarray(to_uint8(image)) for image, _, _ in chunk])
        of_timm = normalise(torch.from_numpy(pixels_BCHW)).numpy()
        of_device = preprocess_batch([image for image, _, _ in chunk], spec)
        differs = [not np.array_equal(a, b) for a, b in zip(of_timm, of_device, strict=True)]
        yield Lot(
            labels=np.array([label for _, label, _ in chunk], dtype=np.int64),
            of_timm=of_timm,
            of_device=of_device,
            differs=np.array(differs),
            sha256=tuple(hashlib.sha256(image.tobytes()).hexdigest() for image, _, _ in chunk),
        )


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, the next one always under way in another thread. At most two are there at a time."""
    end = object()
    step: Callable[[], object] = lambda: next(items, end)  # noqa: E731
    with ThreadPoolExecutor(1, thread_name_prefix="images") as pool:
        coming = pool.submit(step)
        while (item := coming.result()) is not end:
            coming = pool.submit(step)
            yield item  # type: ignore[misc]
