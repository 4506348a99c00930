from __future__ import annotations

import numpy as np
import pytest
import torch
from support import make_format

from dskd_compress.config import AugmentSection, DataSection
from dskd_compress.data import BatchShard, TrainLoader, open_data
from dskd_export.errors import RecipeError


@pytest.mark.parametrize(("size", "count"), [(32, 1), (32, 2), (32, 4), (24, 8), (6, 3), (6, 2), (15, 5)])
def test_shares_make_up_the_batch(size: int, count: int) -> None:
    parts = [BatchShard(index, count).rows(size) for index in range(count)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(size))
    for rows in parts:
        assert rows.tolist() == sorted(rows.tolist())
        if len(rows) % 2 == 0:  # the partner of an image, when the batch is turned round, is in the same share
            assert (size - 1 - rows[::-1]).tolist() == rows.tolist()


def test_one_share_is_the_batch_in_its_order() -> None:
    assert BatchShard().rows(7).tolist() == list(range(7))
    assert BatchShard().rows(8).tolist() == list(range(8))


MIXED = DataSection(
    input_size=32,
    workers=0,
    val_fraction=0.9,
    augment=AugmentSection(hflip=0.5, scale=(0.6, 1.0), mixup=0.4, cutmix=1.0, erase=0.5),
)


def loader(shard: BatchShard, batch_size: int = 32, data: DataSection = MIXED) -> TrainLoader:
    return TrainLoader(
        open_data(data, 0), data, make_format(32), batch_size=batch_size, seed=3, device="cpu", shard=shard
    )


@pytest.mark.parametrize("count", [2, 4])
def test_shards_hold_the_images_of_the_whole_batch_bit_for_bit(count: int) -> None:
    """Crops, flips, erased boxes, mixed partners and mixed labels."""
    shards = [BatchShard(index, count) for index in range(count)]
    loaders = [loader(shard) for shard in shards]
    assert {len(part) for part in loaders} == {len(loader(BatchShard()))}
    whole = list(loader(BatchShard()).epoch(1))
    assert len(whole) == 5
    for (images, targets), *parts in zip(whole, *(part.epoch(1) for part in loaders), strict=True):
        for shard, (some_images, some_targets) in zip(shards, parts, strict=True):
            rows = torch.from_numpy(shard.rows(32))
            assert torch.equal(some_images, images[rows])
            assert torch.equal(some_targets, targets[rows])


def test_a_shard_resumes_within_an_epoch() -> None:
    shard = BatchShard(1, 2)
    expected = list(loader(shard).epoch(0))[3:]
    found = list(loader(shard).epoch(0, skip_batches=3))
    assert len(found) == len(expected) == 2
    assert all(torch.equal(a[0], b[0]) for a, b in zip(found, expected, strict=True))


def test_mixing_pairs_the_images_of_a_shard() -> None:
    with pytest.raises(RecipeError, match="pair the images of a batch, 3 is odd"):
        loader(BatchShard(0, 2), batch_size=6)
