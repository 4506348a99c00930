"""Training batches, the same ones whatever the machine does meanwhile.

Shape suffixes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from dskd_compress.config import DataSection
from dskd_compress.data.batch_augment import BatchAugment
from dskd_compress.data.preprocessing import Normalise, Preprocessing, fit_transform, train_transform
from dskd_compress.data.randomness import draw_epoch_order, keep_generators, mix_seed, seed_all
from dskd_compress.data.resident import DECODED_AT_ONCE, ResidentImages, TrainBatches, check_room
from dskd_compress.data.samples import Batch, StreamSamples, TrainSamples, collate
from dskd_compress.data.shard import WHOLE_BATCH, BatchShard
from dskd_compress.data.shared_memory import check_shared_memory, estimate_batches_size
from dskd_compress.data.sources import DataSets
from dskd_compress.data.streams import StreamSet, count_shards
from dskd_compress.data.unreadable import Budget
from dskd_compress.data.views import augmentation_digest, choose_view
from dskd_compress.data.workers import end_workers, explain_worker_death, open_workers
from dskd_compress.timm_import import import_timm
from dskd_export.errors import DataError, RecipeError

# Keeps the draws of mixing and erasing apart from those of any image.
_BATCH_STREAM = -1


class TrainLoader:
    """Yields the batches of any epoch, from any batch on; its worker processes live as long as it does.

    `data.loader` chooses where batches are made: in worker processes, or from memory on the device.

    The order depends on (seed, epoch), the augmentation on (seed, view, image), where the view is the
    epoch or, with `augment.views`, its remainder. So `epoch(e, skip_batches=k)` gives
    exactly the batches k, k+1, ... of `epoch(e)` and decodes none of those before. Every batch has
    `batch_size` images (the rest of an epoch is dropped: batch normalisation fails on a single
    image); an unreadable image is named in `skipped` and replaced by another.

    Mixup, cutmix and random erasing (which paints the mean colour) act on the device, drawn from
    (seed, epoch, batch) and, for erasing, the place in it. Training's own random generators are left as
    they were.

    With a shard, only its images of each batch are decoded.
    """

    def __init__(
        self,
        sets: DataSets,
        section: DataSection,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        seed: int,
        device: torch.device | str,
        shard: BatchShard = WHOLE_BATCH,
        batch_key: str = "train.batch_size",
    ) -> None:
        """Prepare; processes start with the first epoch.

        Args:
            batch_size: images a batch, over all shards; a multiple of their number.
            batch_key: the recipe's key of the batch size, for messages.

        Raises:
            DataError: fewer images than one batch holds, shards of a stream, or no room for resident images.
            EnvironmentProblem: no room in shared memory for the batches of the workers.
            RecipeError: mixing with an odd batch or shard, an augmentation policy that timm does not know, or
                with `loader: resident` one that works on single images, or a stream.
        """
        import_timm()
        from timm.data import Mixup
        from timm.data.random_erasing import RandomErasing

        augment = section.augment
        self.seed, self.workers, self._kind = seed, section.workers, section.loader
        self._augment, self._preprocessing, self._batch_size = augment, preprocessing, batch_size
        self._rows = shard.rows(batch_size).tolist()
        self._device = torch.device(device)
        self._normalise = Normalise(preprocessing, self._device)
        self._mixup: Any = None
        if augment.mixup > 0 or augment.cutmix > 0:
            if len(self._rows) % 2:
                raise RecipeError(
                    f"{batch_key}: mixup and cutmix pair the images of a batch, {len(self._rows)} is odd.",
                    "Make it even, or set data.augment.mixup and data.augment.cutmix to 0.",
                )
            self._mixup = Mixup(
                mixup_alpha=augment.mixup,
                cutmix_alpha=augment.cutmix,
                label_smoothing=0.0,
                num_classes=len(sets.classes),
            )
        self._erasing: Any = RandomErasing(augment.erase, device=self._device) if augment.erase > 0 else None

        if section.loader == "resident":
            check_room((sets.train, sets.val), preprocessing.input_size, self._device)
        else:
            self._transform = train_transform(preprocessing, augment)
        self._batches: Iterable[Batch] | None = None
        self._resident: TrainBatches | None = None
        self._order: _EpochBatches | None = None
        self._stream: StreamSet | None = None
        if isinstance(sets.train, StreamSet):
            if shard.world_size > 1:
                raise DataError(
                    f"{sets.source}: a stream cannot be shared by {shard.world_size} processes.",
                    "Train with one process, or bring the images into folders, a .npz or a .tar.",
                )
            self._stream = sets.train
            available = count_shards(sets.train.reader(training=False))
            self.workers = self.workers if available is None else min(self.workers, available)
            length = self._stream_samples(self._stream, 0).length()
        else:
            length = len(sets.train)
            self._order = _EpochBatches(length, batch_size, seed, augment.views, shard)
            if section.loader == "resident":
                self._resident = TrainBatches(
                    ResidentImages(sets.train, fit_transform(preprocessing), self._device, section.workers),
                    BatchAugment(augment, preprocessing.interpolation, seed),
                    self._order,
                )
            else:
                self._samples = TrainSamples(sets.train, self._transform, seed)
        if length is not None:
            check_batch_size(sets.source, length, batch_size, batch_key, shard)
        at_once = len(self._rows) if self._resident is None else DECODED_AT_ONCE
        check_shared_memory(estimate_batches_size(length, at_once, preprocessing.input_size, self.workers))
        self._budget = Budget(sets.source, length, sets.max_unreadable, sets.train)

    def _stream_samples(self, stream: StreamSet, seed: int) -> StreamSamples:
        return StreamSamples(
            stream,
            self._transform,
            training=True,
            batch_size=self._batch_size,
            workers=max(self.workers, 1),
            seed=seed,
        )

    def _open(self, epoch: int) -> Iterable[Batch]:
        if self._resident is not None:
            return self._resident
        if self._stream is None:
            return open_workers(self._samples, self.workers, self._device, collate, batch_sampler=self._order)
        # timm's readers shuffle by this seed in this process and by the loader's in workers.
        seed = mix_seed(self.seed, epoch) & 0x7FFFFFFF
        return open_workers(
            self._stream_samples(self._stream, seed),
            self.workers,
            self._device,
            collate,
            seed=seed,
            batch_size=self._batch_size,
            drop_last=True,
        )

    @property
    def skipped(self) -> list[str]:
        """Names of unreadable images met so far."""
        return self._budget.skipped

    def __len__(self) -> int:
        """Batches of a whole epoch; see `Budget.known_length` for streams."""
        return self._budget.known_length() // self._batch_size

    def epoch(self, epoch: int, skip_batches: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the batches of an epoch.

        Args:
            epoch: 0-based.
            skip_batches: leave out so many; a stream has to read them, everything else does not.

        Yields:
            Images [B, C, H, W] on the device, normalised; targets int64 [B], or with mixing float [B, K].

        Raises:
            DataError: too many images are unreadable.
            EnvironmentProblem: a worker process died.
        """
        first = skip_batches
        if self._order is not None:
            self._order.epoch, self._order.skip_batches = epoch, skip_batches
        else:
            # A reader keeps the state of its shuffling: a new one gives the same epoch again.
            first = 0
            self.close()
            self._budget.restart()
        if self._batches is None:
            self._batches = self._open(epoch)
        with explain_worker_death(self.workers):
            batches: Iterator[tuple[int, Batch]] = enumerate(self._batches, first)
            for number, batch in islice(batches, skip_batches - first, None):
                self._budget.add(batch.failures, (number + 1) * self._batch_size)
                if batch.error is not None:
                    raise batch.error
                if batch.images is not None:
                    yield self._finish(batch.images, batch.targets, epoch, number)

    def _finish(
        self, images_BCHW: torch.Tensor, targets: torch.Tensor, epoch: int, number: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        images_BCHW = self._normalise(images_BCHW)
        targets = targets.to(self._device, non_blocking=True)
        if self._mixup is None and self._erasing is None:
            return images_BCHW, targets
        with keep_generators():
            if self._erasing is not None:
                for image_CHW, row in zip(images_BCHW, self._rows, strict=False):  # a stream may end early
                    random.seed(mix_seed(self.seed, epoch, number, _BATCH_STREAM, row))
                    self._erasing(image_CHW)
            seed_all(self.seed, epoch, number, _BATCH_STREAM)
            if self._mixup is not None:
                images_BCHW, targets = self._mixup(images_BCHW, targets)
        return images_BCHW, targets

    def sample_keys(self, epoch: int, batch: int) -> NDArray[np.int64] | None:
        """Name the images of a batch: equal keys are equal pixels, in any epoch of any run of one digest.

        Args:
            batch: number of the batch in the whole epoch.

        Returns:
            int64 [B, 2], (view, index in the set), of the whole batch whatever this process has of it;
            None where a batch is no set of single images that come again: streams, and with mixup, cutmix
            or erasing.
        """
        if self._order is None or self._mixup is not None or self._erasing is not None:
            return None
        return self._order.keys(epoch, batch)

    def augmentation_digest(self) -> str:
        """Hash of all that makes the pixels of a sample key, apart from the images of the set."""
        return augmentation_digest(self._augment, self._preprocessing, self.seed, self._kind)

    def close(self) -> None:
        """End the worker processes; the next epoch starts new ones."""
        if isinstance(self._batches, DataLoader):
            end_workers(self._batches)
        self._batches = None


class _EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (view, index) of the epoch that is set, without those to skip."""

    def __init__(self, length: int, batch_size: int, seed: int, views: int | None, shard: BatchShard) -> None:
        self.length, self.batch_size, self.seed, self.views = length, batch_size, seed, views
        self.rows = shard.rows(batch_size)
        self.epoch = 0
        self.skip_batches = 0
        self._ordered: tuple[int, NDArray[np.int64]] | None = None

    def keys(self, epoch: int, batch: int) -> NDArray[np.int64]:
        """(view, index) of a whole batch, over all processes, [B, 2]."""
        if self._ordered is None or self._ordered[0] != epoch:
            self._ordered = epoch, draw_epoch_order(self.length, self.seed, epoch)
        chosen = self._ordered[1][batch * self.batch_size : (batch + 1) * self.batch_size]
        return np.stack([np.full_like(chosen, choose_view(epoch, self.views)), chosen], axis=1)

    def __len__(self) -> int:
        return max(self.length // self.batch_size - self.skip_batches, 0)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        for number in range(self.skip_batches, self.length // self.batch_size):
            yield [(view, index) for view, index in self.keys(epoch, number)[self.rows].tolist()]


def check_batch_size(source: str, length: int, batch_size: int, key: str, shard: BatchShard | None = None) -> None:
    """Refuse a batch that needs more training images than there are.

    Args:
        length: number of training images.
        key: the recipe's key of the batch size.
        shard: of one of several processes; None: there is one.

    Raises:
        DataError: names the largest power of two that fits.
    """
    if length < batch_size:
        raise DataError(
            f"{source}: {length} training images are fewer than one batch of {batch_size}.",
            _smaller_batch(length, shard or BatchShard(), key),
        )


def _smaller_batch(length: int, shard: BatchShard, key: str) -> str:
    """What to do where a batch has more images than there are: a power of two for each process."""
    each = length // shard.world_size
    most = shard.world_size << (each.bit_length() - 1) if each else 0
    return f"Add images, or take a smaller batch: --set {key}={most}" if most >= 2 else "Add images."
