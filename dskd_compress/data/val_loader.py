"""Evaluation batches, and single images for exports and checks.

Shape suffixes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from PIL import Image

from dskd_compress.data.image_set import ImageSet
from dskd_compress.data.preprocessing import Normalise, Preprocessing, eval_transform
from dskd_compress.data.randomness import draw_epoch_order
from dskd_compress.data.resident import DECODED_AT_ONCE, ResidentImages, ValBatches, check_room
from dskd_compress.data.samples import Batch, StreamSamples, ValSamples, collate
from dskd_compress.data.shared_memory import check_shared_memory, estimate_batches_size
from dskd_compress.data.sources import DataSets
from dskd_compress.data.streams import StreamSet
from dskd_compress.data.unreadable import Budget
from dskd_compress.data.workers import explain_worker_death, open_workers
from dskd_export.runtime.images import UnreadableImage


class ValLoader:
    """Gives the validation set in its order, the last batch as small as it is.

    An unreadable image is named in `skipped` and left out: its batch is smaller. The worker
    processes live as long as the loader, which can be run through again and again.
    """

    def __init__(
        self,
        sets: DataSets,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        device: torch.device | str,
        workers: int,
        resident: bool = False,
    ) -> None:
        """Prepare; processes start with the first batch.

        Args:
            resident: hold the images on the device, as they leave the evaluation transform.

        Raises:
            DataError: no room for resident images.
            EnvironmentProblem: no room in shared memory for the batches of the workers.
            RecipeError: resident images of a stream.
        """
        transform = eval_transform(preprocessing, normalise=False)
        torch_device = torch.device(device)
        self._batches: Iterable[Batch]
        if resident:
            check_room((sets.val,), preprocessing.input_size, torch_device)
        if isinstance(sets.val, StreamSet):
            # Several readers would interleave their shards: one keeps the stored order.
            workers = min(workers, 1)
            stream = StreamSamples(sets.val, transform, training=False, batch_size=batch_size, workers=1)
            length = sets.val.length
            self._batches = open_workers(stream, workers, torch_device, collate, batch_size=batch_size)
        elif resident:
            images = ResidentImages(sets.val, transform, torch_device, workers)
            length = len(images)
            self._batches = ValBatches(images, batch_size)
        else:
            samples = ValSamples(sets.val, transform)
            length = len(samples)
            self._batches = open_workers(samples, workers, torch_device, collate, batch_size=batch_size)
        at_once = DECODED_AT_ONCE if resident else batch_size
        check_shared_memory(estimate_batches_size(length, at_once, preprocessing.input_size, workers))
        self.workers = workers
        self._batch_size = batch_size
        self._device = torch_device
        self._normalise = Normalise(preprocessing, torch_device)
        self._budget = Budget(sets.source, length, sets.max_unreadable, sets.val)

    @property
    def skipped(self) -> list[str]:
        """Names of unreadable images met so far."""
        return self._budget.skipped

    def __len__(self) -> int:
        """Batches, those without a readable image included; see `Budget.known_length` for streams."""
        return -(-self._budget.known_length() // self._batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield images float32 [B, C, H, W], normalised, and targets int64 [B], on the device.

        Raises:
            DataError: too many images are unreadable.
            EnvironmentProblem: a worker process died.
        """
        with explain_worker_death(self.workers):
            for number, batch in enumerate(self._batches, 1):
                self._budget.add(batch.failures, number * self._batch_size)
                if batch.error is not None:
                    raise batch.error
                if batch.images is not None:
                    yield (
                        self._normalise(batch.images),
                        batch.targets.to(self._device, non_blocking=True),
                    )


def iter_images(
    images: ImageSet | StreamSet,
    limit: int | None = None,
    seed: int = 0,
    *,
    max_unreadable: float = 0.001,
    skipped: list[str] | None = None,
) -> Iterator[tuple[Image.Image, int, str]]:
    """Yield single images: (RGB image in its native size, label, name).

    Args:
        limit: at most so many, drawn by `seed` and spread over the classes: no class gives a second
            image before every class has given one. A stream gives its first ones. None: all, in order.
        max_unreadable: share of unreadable images of the set that is tolerated; with a limit the
            next image of the draw takes their place.
        skipped: names of unreadable images are added to it.

    Raises:
        DataError: too many images are unreadable.
    """
    if isinstance(images, StreamSet):
        for position, (image, label) in enumerate(images):
            if limit is not None and position >= limit:
                return
            yield image, label, images.name(position)
        return
    budget = Budget("data.source", len(images), max_unreadable, images)
    given = 0
    for index in range(len(images)) if limit is None else _spread(images, seed):
        if limit is not None and given >= limit:
            return
        try:
            image = images.image(index)
        except UnreadableImage as failure:
            if skipped is not None and failure.name not in skipped:
                skipped.append(failure.name)
            budget.add([failure])
            continue
        given += 1
        yield image, images.label(index), images.name(index)


def _spread(images: ImageSet, seed: int) -> list[int]:
    """All indices in rounds; a round takes one image of every class that has any left."""
    turn: dict[int, int] = {}
    rounds: list[list[int]] = []
    for index in draw_epoch_order(len(images), seed, 0).tolist():
        label = images.label(index)
        position = turn.get(label, 0)
        turn[label] = position + 1
        if position == len(rounds):
            rounds.append([])
        rounds[position].append(index)
    return [index for members in rounds for index in members]
