"""Images of a validation, prepared as the device does, in batches that are read ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dskd_export.bundle import Bundle
from dskd_export.bundle.golden import Golden
from dskd_export.documents.base import DataFacts
from dskd_export.runtime.images import pixel_sha256, to_rgb
from dskd_export.runtime.labelled_images import LabelledImages
from dskd_export.runtime.orientation import UPRIGHT, read_orientation
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.runtime.runner import Array
from dskd_export.spec import ExifMode
from dskd_export.validation.models import BATCH

GOLDEN = "golden.npz"

Item = TypeVar("Item")


@dataclass(frozen=True)
class ValidationBatch:
    """Some images of a validation.

    Attributes:
        labels: int64 [B]; None: golden inputs, whose accuracy says nothing.
        inputs: as the device feeds them to a model.
        sha256: of each image's pixels, as the golden images are named.
        names: of the images, for people; empty: they have none.
    """

    labels: NDArray[np.int64] | None
    inputs: Array
    sha256: tuple[str, ...]
    names: tuple[str, ...] = field(default=(), kw_only=True)


def prefetch(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the same items while another thread prepares the next one; at most two are held at a time."""
    end = object()
    step: Callable[[], object] = lambda: next(items, end)  # noqa: E731
    with ThreadPoolExecutor(1, thread_name_prefix="images") as pool:
        coming = pool.submit(step)
        while (item := coming.result()) is not end:
            coming = pool.submit(step)
            yield item  # type: ignore[misc]


def iter_labelled_batches(
    images: LabelledImages, bundle: Bundle, skipped: list[str], max_unreadable: float, ignored: list[str]
) -> Iterator[ValidationBatch]:
    """Prepare labelled images as the device does, `BATCH` at a time.

    Args:
        images: of a folder.
        bundle: whose spec prepares them.
        skipped: gets the names of images that cannot be read.
        max_unreadable: share of them that is tolerated.
        ignored: gets the names of images with an orientation in EXIF that the bundle ignores.

    Raises:
        DataError: more cannot be read.
    """
    decoded = _orient(images.read_named(skipped, max_unreadable), bundle.spec.exif, ignored)
    while chunk := list(islice(decoded, BATCH)):
        yield ValidationBatch(
            labels=np.array([label for _, label, _ in chunk], np.int64),
            inputs=preprocess_batch([image for image, _, _ in chunk], bundle.spec),
            sha256=tuple(pixel_sha256(image) for image, _, _ in chunk),
            names=tuple(name for _, _, name in chunk),
        )


def _orient(
    decoded: Iterator[tuple[Image.Image, int, str]], exif: ExifMode, ignored: list[str]
) -> Iterator[tuple[Image.Image, int, str]]:
    for image, label, name in decoded:
        if exif == "ignore" and read_orientation(image) != UPRIGHT:
            ignored.append(name)
        # Turned before their pixels are hashed, as golden images are.
        yield to_rgb(image, name, exif=exif), label, name


def iter_golden_batches(golden: Golden) -> Iterator[ValidationBatch]:
    """The golden inputs of a bundle, where there are no images."""
    for start in range(0, len(golden.input), BATCH):
        names = golden.image_sha256[start : start + BATCH]
        yield ValidationBatch(None, golden.input[start : start + BATCH], tuple(map(str, names)))


def describe_golden(bundle: Bundle) -> DataFacts:
    """Describe the golden images as the data of a validation."""
    return DataFacts(
        source=f"{GOLDEN} of the bundle",
        sha256=bundle.manifest.files[GOLDEN].sha256,
        sha256_of="content",
        train_images=None,
        val_images=len(bundle.golden().labels),
        classes=list(bundle.spec.classes),
    )
