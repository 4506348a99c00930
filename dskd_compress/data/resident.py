"""Image sets that are decoded once, to one size, and lie as bytes on the training device.

Shape suffixes: N images of the set, B batch, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dskd_compress.data.batch_augment import BatchAugment
from dskd_compress.data.image_set import ImageSet
from dskd_compress.data.preprocessing import Transform
from dskd_compress.data.samples import Batch, TransformedImages, draw_candidates, make_unreadable_error
from dskd_compress.data.sources import Images
from dskd_compress.data.streams import StreamSet
from dskd_compress.data.workers import end_workers, open_workers
from dskd_export.errors import DataError, RecipeError
from dskd_export.runtime.images import UnreadableImage
from dskd_export.telemetry.host import available_memory

# Of the memory that is free when a training starts; model, activations and everything else take the rest.
MEMORY_SHARE = 0.5
DECODED_AT_ONCE = 64


def check_room(sets: Sequence[Images], input_size: tuple[int, int, int], device: torch.device) -> None:
    """Refuse what cannot be held.

    Raises:
        RecipeError: a set is a stream.
        DataError: they take more than `MEMORY_SHARE` of what is free there; both sizes are named.
    """
    if any(isinstance(images, StreamSet) for images in sets):
        raise RecipeError(
            "data.loader: a stream has no end to hold in memory.",
            "Set data.loader=workers, or bring the images into folders, a .npz or a .tar.",
        )
    needed = sum(len(images) for images in sets) * math.prod(input_size)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    if free is not None and needed > free * MEMORY_SHARE:
        size = "x".join(map(str, input_size))
        raise DataError(
            f"data.loader: {sum(len(images) for images in sets)} images of {size} take {needed / 1e6:,.0f} MB; "
            f"{free * MEMORY_SHARE / 1e6:,.0f} MB are available to them, half of what is free on {device}.",
            "Set data.loader=workers, lower data.input_size, or free memory.",
        )


class ResidentImages:
    """A set as one tensor, filled at its first use."""

    def __init__(self, images: ImageSet, transform: Transform, device: torch.device, workers: int) -> None:
        """Prepare.

        Args:
            transform: RGB image -> uint8 [C, H, W], all of one size.
        """
        self.images = images
        self.device = device
        self._fitted = _Fitted(images, transform)
        self._workers = workers
        self._pixels_NCHW: torch.Tensor | None = None
        self.failures: dict[int, UnreadableImage] = {}
        self.labels = torch.tensor([images.label(index) for index in range(len(images))])

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self) -> torch.Tensor:
        """All images, uint8 [N, C, H, W]; black where unreadable, see `failures`."""
        if self._pixels_NCHW is None:
            self._pixels_NCHW = self._decode()
        return self._pixels_NCHW

    def _decode(self) -> torch.Tensor:
        pixels_NCHW: torch.Tensor | None = None
        loader = open_workers(self._fitted, self._workers, self.device, _as_it_is, batch_size=DECODED_AT_ONCE)
        try:
            start = 0
            for images_BCHW, failures in loader:
                if pixels_NCHW is None:
                    shape = (len(self), *images_BCHW.shape[1:])
                    pixels_NCHW = torch.empty(shape, dtype=torch.uint8, device=self.device)
                pixels_NCHW[start : start + len(images_BCHW)] = images_BCHW.to(self.device)
                self.failures.update({start + position: failure for position, failure in failures})
                start += len(images_BCHW)
        finally:
            end_workers(loader)
        assert pixels_NCHW is not None
        return pixels_NCHW


class TrainBatches:
    """Augmented batches of a resident set, in the order of a sampler."""

    def __init__(
        self, resident: ResidentImages, augment: BatchAugment, order: Iterable[list[tuple[int, int]]]
    ) -> None:
        """Take the order: batches of (view, index)."""
        self.resident = resident
        self.augment = augment
        self.order = order

    def __iter__(self) -> Iterator[Batch]:
        pixels_NCHW = self.resident.pixels()
        for batch in self.order:
            keys_B2 = np.asarray(batch, np.int64)
            chosen, failures, error = self._readable(keys_B2)
            if error is not None:
                yield Batch(None, torch.empty(0, dtype=torch.int64), failures, error)
                continue
            index_B = torch.from_numpy(chosen)
            images_BCHW = pixels_NCHW.index_select(0, index_B.to(self.resident.device))
            yield Batch(self.augment(images_BCHW, keys_B2), self.resident.labels[index_B], failures, None)

    def _readable(
        self, keys_B2: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], list[UnreadableImage], DataError | None]:
        """Indices with the unreadable ones replaced, by the rule of `TrainSamples`."""
        unreadable, chosen_B = self.resident.failures, keys_B2[:, 1].copy()
        failures: list[UnreadableImage] = []
        for position, (view, index) in enumerate(keys_B2.tolist() if unreadable else []):
            met: list[UnreadableImage] = []
            for candidate in draw_candidates(self.augment.seed, view, index, len(self.resident)):
                if candidate not in unreadable:
                    chosen_B[position] = candidate
                    break
                met.append(unreadable[candidate])
            else:
                return chosen_B, failures + met, make_unreadable_error(met)
            failures += met
        return chosen_B, failures, None


class ValBatches:
    """A resident set in its order, without what is unreadable."""

    def __init__(self, resident: ResidentImages, batch_size: int) -> None:
        self.resident = resident
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[Batch]:
        pixels_NCHW, unreadable = self.resident.pixels(), self.resident.failures
        for start in range(0, len(self.resident), self.batch_size):
            part = range(start, min(start + self.batch_size, len(self.resident)))
            kept = torch.tensor([index for index in part if index not in unreadable], dtype=torch.int64)
            failures = [unreadable[index] for index in part if index in unreadable]
            images_BCHW = pixels_NCHW.index_select(0, kept.to(self.resident.device)) if len(kept) else None
            yield Batch(images_BCHW, self.resident.labels[kept], failures, None)


_Part = tuple[torch.Tensor, list[tuple[int, UnreadableImage]]]


class _Fitted(TransformedImages[_Part]):
    """Images of one size, many at once: uint8 [B, C, H, W], and the places of those that are unreadable."""

    def __getitem__(self, index: int) -> _Part:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> _Part:
        failures: list[tuple[int, UnreadableImage]] = []
        fitted: list[torch.Tensor] = []
        for position, index in enumerate(indices):
            try:
                fitted.append(self.transform(self.images.image(index)))
            except UnreadableImage as failure:
                failures.append((position, failure))
                fitted.append(self.transform(Image.new("RGB", (64, 64))))
        return torch.stack(fitted), failures


def _as_it_is(part: _Part) -> _Part:
    return part
