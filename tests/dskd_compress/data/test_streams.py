"""Streams of timm's readers; run where webdataset is installed, it is no dependency of ours."""

from __future__ import annotations

import io
import json
import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dskd_compress.config import AugmentSection, DataSection
from dskd_compress.data import Preprocessing, TrainLoader, ValLoader, check_data, iter_images, open_data
from dskd_export.errors import DataError

PRE = Preprocessing((3, 8, 8), (0.0,) * 3, (1.0,) * 3, "bilinear", 1.0, "center")


def write_shard(
    path: Path,
    numbers: range,
    broken: int | None = None,
    dtype: type[np.unsignedinteger] = np.uint8,
    times: int = 1,
) -> None:
    """Grey images, each of the brightness of its number, label number % 3."""
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            stream = io.BytesIO()
            shape = (10, 10, 3) if dtype is np.uint8 else (10, 10)
            Image.fromarray(np.full(shape, number * times, dtype)).save(stream, "PNG")
            pixels = b"no image" if number == broken else stream.getvalue()
            for suffix, content in (("png", pixels), ("cls", str(number % 3).encode())):
                member = tarfile.TarInfo(f"{number:05d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    pytest.importorskip("webdataset")
    write_shard(tmp_path / "t0.tar", range(20), broken=5)
    write_shard(tmp_path / "t1.tar", range(20, 40))
    write_shard(tmp_path / "v0.tar", range(50, 60))
    splits = {
        "train": {
            "name": "train",
            "num_samples": 40,
            "filenames": ["t0.tar", "t1.tar"],
            "shard_lengths": [20, 20],
        },
        "validation": {"name": "validation", "num_samples": 10, "filenames": ["v0.tar"], "shard_lengths": [10]},
    }
    (tmp_path / "_info.json").write_text(json.dumps({"name": "grey", "splits": splits}))
    (tmp_path / "classnames.txt").write_text("x\ny\nz\n")
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_wds_trains_validates_and_resumes(shards: Path, workers: int) -> None:
    section = DataSection(
        source=f"wds/{shards}", workers=workers, max_unreadable=0.1, augment=AugmentSection(hflip=0.5)
    )
    sets = open_data(section, 0)
    check_data(sets)
    assert (sets.classes, len(sets.train), len(sets.val)) == (("x", "y", "z"), 40, 10)
    assert sets.facts().sha256_of == "listing"

    train = TrainLoader(sets, section, PRE, batch_size=4, seed=0, device="cpu")
    whole = list(train.epoch(3))
    assert len(whole) == len(train) == 10
    for images, targets in whole:
        numbers = (images.mean((1, 2, 3)) * 255).round().long()
        assert torch.equal(numbers % 3, targets)
    again = TrainLoader(sets, section, PRE, batch_size=4, seed=0, device="cpu")
    for (images, _), (expected, _) in zip(again.epoch(3, skip_batches=4), whole[4:], strict=True):
        assert torch.equal(images, expected)
    assert not torch.equal(next(train.epoch(4))[0], whole[0][0])
    assert train.skipped
    train.close()

    batches = list(ValLoader(sets, PRE, batch_size=4, device="cpu", workers=workers))
    numbers = torch.cat([(images.mean((1, 2, 3)) * 255).round().long() for images, _ in batches])
    assert numbers.tolist() == list(range(50, 60))
    assert [label for _, label, _ in iter_images(sets.val, 3)] == [2, 0, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_wds_resumes_within_uneven_shards(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five shards on two workers, a shuffle buffer smaller than the set, mixing by the batch's number."""
    pytest.importorskip("webdataset")
    reader_wds = pytest.importorskip("timm.data.readers.reader_wds")
    monkeypatch.setattr(reader_wds, "SAMPLE_SHUFFLE_SIZE", 8)
    monkeypatch.setattr(reader_wds, "SAMPLE_INITIAL_SIZE", 4)
    bounds = [0, 9, 14, 30, 37, 48]
    for part, (start, end) in enumerate(pairwise(bounds)):
        write_shard(tmp_path / f"train-{part}.tar", range(start, end), broken=20 if part == 2 else None)
    write_shard(tmp_path / "val-0.tar", range(50, 56))
    (tmp_path / "classnames.txt").write_text("x\ny\nz\n")
    section = DataSection(
        source=f"wds/{tmp_path}",
        train_split="train-{0..4}.tar|48",
        val_split="val-0.tar|6",
        workers=workers,
        max_unreadable=0.1,
        augment=AugmentSection(color_jitter=0.2, mixup=0.5, erase=0.2),
    )
    sets = open_data(section, 0)

    def batches(epoch: int, skip: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
        train = TrainLoader(sets, section, PRE, batch_size=4, seed=1, device="cpu")
        try:
            return list(train.epoch(epoch, skip_batches=skip))
        finally:
            train.close()

    whole = batches(2)
    assert len(whole) == 12
    for skip in range(0, 13, 3) if workers == 0 else (1, 6, 11):
        again = batches(2, skip)
        assert len(again) == 12 - skip
        for (images, targets), (expected, labels) in zip(again, whole[skip:], strict=True):
            assert torch.equal(images, expected)
            assert torch.equal(targets, labels)
    assert not torch.equal(batches(3)[0][0], whole[0][0])


def test_wds_errors(shards: Path) -> None:
    with pytest.raises(DataError, match="split none not found"):
        open_data(DataSection(source=f"wds/{shards}", val_split="none"), 0)
    (shards / "classnames.txt").write_text("x\ny\n")
    section = DataSection(source=f"wds/{shards}", workers=0, max_unreadable=1.0)
    train = TrainLoader(open_data(section, 0), section, PRE, batch_size=4, seed=0, device="cpu")
    with pytest.raises(DataError, match="label 2, but there are 2 class names"):
        list(train.epoch(0))
    (shards / "classnames.txt").unlink()
    with pytest.raises(DataError, match=r"classnames\.txt"):
        open_data(DataSection(source=f"wds/{shards}"), 0)
    marker = shards / "executed"
    for source in (f"wds/pipe:touch {marker}", f"wds/https://host/$(touch {marker})"):
        with pytest.raises(DataError, match="safe to open"):
            open_data(DataSection(source=source), 0)
    assert not marker.exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_wds_of_16_bit_grey(shards: Path, workers: int) -> None:
    """Read where 8 bits hold it, else the stream ends with an error; timm would make all of it white."""
    write_shard(shards / "v0.tar", range(50, 60), dtype=np.uint16)
    section = DataSection(source=f"wds/{shards}", workers=workers, max_unreadable=0.1)
    sets = open_data(section, 0)
    (images, _), *_ = ValLoader(sets, PRE, batch_size=10, device="cpu", workers=workers)
    assert (images.mean((1, 2, 3)) * 255).round().long().tolist() == list(range(50, 60))

    for name, numbers in (("t0.tar", range(20)), ("t1.tar", range(20, 40)), ("v0.tar", range(50, 60))):
        write_shard(shards / name, numbers, dtype=np.uint16, times=700)
    refused = r"of the stream: pixels of type I;16 that are not all whole numbers from 0 to 255"
    with pytest.raises(DataError, match=rf"validation, image 0 {refused}"):
        list(ValLoader(sets, PRE, batch_size=10, device="cpu", workers=workers))
    with pytest.raises(DataError, match=rf"validation, image 0 {refused}"):
        list(iter_images(sets.val, 3))
    train = TrainLoader(sets, section, PRE, batch_size=4, seed=0, device="cpu")
    with pytest.raises(DataError, match=refused):
        list(train.epoch(0))
    train.close()
