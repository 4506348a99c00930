"""What runs in the worker processes: an index in, an augmented uint8 image out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple, TypeVar

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from dskd_compress.data.image_set import ImageSet
from dskd_compress.data.preprocessing import Transform
from dskd_compress.data.randomness import keep_generators, mix_seed, seed_all
from dskd_compress.data.streams import ReaderWarnings, StreamSet
from dskd_compress.timm_import import import_timm
from dskd_export.errors import DataError
from dskd_export.runtime.images import UnreadableImage

# A worker that was not forked imports this module first, and then unpickles transforms of torchvision, which may
# have to be mended.
import_timm()

# An image and its replacements; with half of a set unreadable, the chance that all of these fail is 2^-64.
MAX_CANDIDATES = 64

T = TypeVar("T")


class Sample(NamedTuple):
    """One image for a batch, or what stands in its way."""

    image: torch.Tensor | None  # uint8 [C, H, W]
    label: int
    failures: tuple[UnreadableImage, ...] = ()
    # An error that must cross the process border as a value: torch rewrites those that are raised.
    error: DataError | None = None


class Batch(NamedTuple):
    """Samples put together."""

    images: torch.Tensor | None  # uint8 [B, C, H, W]; None where no image could be read
    targets: torch.Tensor  # int64 [B]
    failures: list[UnreadableImage]
    error: DataError | None


def collate(samples: list[Sample]) -> Batch:
    """Stack the images that could be read."""
    readable = [(sample.image, sample.label) for sample in samples if sample.image is not None]
    return Batch(
        torch.stack([image for image, _ in readable]) if readable else None,
        torch.tensor([label for _, label in readable], dtype=torch.int64),
        [failure for sample in samples for failure in sample.failures],
        next((sample.error for sample in samples if sample.error is not None), None),
    )


class TransformedImages(Dataset[T]):
    """Base of the data sets that transform the images of a set."""

    def __init__(self, images: ImageSet, transform: Transform) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)


class TrainSamples(TransformedImages[Sample]):
    """Augmented images by (view, index), see `views`.

    The augmentation of an image draws from a generator seeded by (seed, view, index): neither the
    number of workers nor the place where an interrupted epoch resumes changes it. An unreadable
    image is replaced by another one, chosen from the same seed, so that a batch keeps its size.
    """

    def __init__(self, images: ImageSet, transform: Transform, seed: int) -> None:
        super().__init__(images, transform)
        self.seed = seed

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Sample]:
        """Return a batch; torch calls this instead of `__getitem__` where it exists."""
        with keep_generators():
            return [self._sample(view, index) for view, index in keys]

    def _sample(self, view: int, index: int) -> Sample:
        failures: list[UnreadableImage] = []
        for chosen in draw_candidates(self.seed, view, index, len(self.images)):
            try:
                image = self.images.image(chosen)
            except UnreadableImage as failure:
                failures.append(failure)
                continue
            seed_all(self.seed, view, index)
            return Sample(self.transform(image), self.images.label(chosen), tuple(failures))
        return Sample(None, -1, tuple(failures), make_unreadable_error(failures))


def draw_candidates(seed: int, view: int, index: int, length: int) -> Iterator[int]:
    """Yield the image of a key, then those that take its place, one after the other, if it is unreadable."""
    yield index
    for attempt in range(1, MAX_CANDIDATES):
        yield mix_seed(seed, view, index, attempt) % length


def make_unreadable_error(failures: Sequence[UnreadableImage]) -> DataError:
    """Make the error for an image and all its replacements."""
    return DataError(
        f"{failures[0].name} and {len(failures) - 1} drawn in its place are unreadable.",
        "Repair or delete the unreadable images.",
    )


class ValSamples(TransformedImages[Sample]):
    """Images for evaluation; an unreadable one is left out."""

    def __getitem__(self, index: int) -> Sample:
        try:
            return Sample(self.transform(self.images.image(index)), self.images.label(index))
        except UnreadableImage as failure:
            return Sample(None, -1, (failure,))


class StreamSamples(IterableDataset[Sample]):
    """One run through a stream; the augmentation is seeded by (seed, worker, position)."""

    def __init__(
        self,
        stream: StreamSet,
        transform: Transform,
        *,
        training: bool,
        batch_size: int,
        workers: int,
        seed: int = 0,
    ) -> None:
        self.stream = stream
        self.transform = transform
        self.training = training
        self.batch_size = batch_size
        self.seed = seed
        self.dataset: Any = stream.reader(training=training, batch_size=batch_size, seed=seed)
        self.dataset.set_loader_cfg(num_workers=workers)

    def length(self) -> int | None:
        """Images that one run gives, over all workers."""
        return len(self.dataset) or None

    def __iter__(self) -> Iterator[Sample]:
        try:
            yield from self._samples()
        except DataError as error:
            # A whole batch of it: the loader drops one that is not full, and the error with it.
            yield from [Sample(None, -1, error=error)] * self.batch_size

    def _samples(self) -> Iterator[Sample]:
        info = get_worker_info()
        worker = info.id if info is not None else 0
        with ReaderWarnings() as warnings:
            samples = iter(self.dataset)
            for position in count():
                name = self.stream.name(position)
                try:
                    image, label = next(samples)
                except StopIteration:
                    return
                except Exception as error:  # a reader's own; the stream cannot go on after it
                    raise DataError(
                        f"{self.stream.source}, {name}: {error!r}",
                        "Repair the shard, or leave it out of the split.",
                    ) from error
                if not 0 <= int(label) < len(self.stream.classes):
                    raise DataError(
                        f"{self.stream.source}, {name}: label {int(label)}, but there are "
                        f"{len(self.stream.classes)} class names.",
                        "Name every class, in the order of the numbers, and leave unlabelled images out.",
                    )
                image = self.stream.to_rgb(image, position)
                failures = tuple(
                    UnreadableImage(f"worker {worker}, {name}", reason) for reason in warnings.drain()
                )
                if not self.training:
                    yield Sample(self.transform(image), int(label), failures)
                    continue
                with keep_generators():
                    seed_all(self.seed, worker, position)
                    augmented = self.transform(image)
                yield Sample(augmented, int(label), failures)
