"""Hugging Face data sets from local files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dskd_compress.config import AugmentSection, DataSection
from dskd_compress.data import Preprocessing, StreamSet, TrainLoader, ValLoader, check_data, iter_images, open_data
from dskd_export.errors import DataError

PRE = Preprocessing((3, 8, 8), (0.0,) * 3, (1.0,) * 3, "bilinear", 1.0, "center")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory):
    import datasets as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        patch.setattr(module.config, "HF_HUB_OFFLINE", True)
        # After each pass over parquet files it waits 5 s for its reader threads.
        patch.setattr(module.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1, raising=False)
        module.disable_progress_bars()
        yield module


@pytest.fixture(scope="module")
def parquet(datasets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training shards and one of validation; grey images, label number % 3."""
    root = tmp_path_factory.mktemp("parquet")
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "kind": datasets.ClassLabel(names=["x", "y", "z"]),
            "id": datasets.Value("int64"),
        }
    )
    parts = {f"train-{part:05d}-of-00004": range(10 * part, 10 * part + 10) for part in range(4)}
    for name, numbers in {**parts, "validation-00000-of-00001": range(50, 60)}.items():
        rows = {
            "img": [Image.fromarray(np.full((10, 10, 3), number, np.uint8)) for number in numbers],
            "kind": [number % 3 for number in numbers],
            "id": list(numbers),
        }
        datasets.Dataset.from_dict(rows, features=features).to_parquet(root / f"{name}.parquet", batch_size=5)
    return root


def section(root: Path, reader: str, workers: int = 0, **keys) -> DataSection:
    return DataSection(
        source=f"{reader}/{root}?image=img&label=kind",
        workers=workers,
        augment=AugmentSection(color_jitter=0.2),
        **keys,
    )


def numbers_of(images: torch.Tensor) -> list[int]:
    return (images.mean((1, 2, 3)) * 255).round().long().tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_goes_on_with_exactly_the_remaining_batches(parquet: Path, workers: int) -> None:
    data = section(parquet, "hfids", workers, train_split="train|40", val_split="validation|10")
    sets = open_data(data, 0)
    check_data(sets)
    assert isinstance(sets.train, StreamSet)
    assert (sets.classes, len(sets.train), len(sets.val)) == (("x", "y", "z"), 40, 10)
    train = TrainLoader(sets, data, PRE, batch_size=4, seed=0, device="cpu")
    whole = list(train.epoch(2))
    assert len(whole) == len(train) == 10
    for skip in (7,) if workers == 0 else (1, 7):
        # A new loader, as after a restart.
        again = list(TrainLoader(sets, data, PRE, batch_size=4, seed=0, device="cpu").epoch(2, skip_batches=skip))
        assert len(again) == 10 - skip
        for (images, targets), (expected, labels) in zip(again, whole[skip:], strict=True):
            assert torch.equal(images, expected)
            assert torch.equal(targets, labels)
    assert not all(torch.equal(a, b) for (a, _), (b, _) in zip(train.epoch(3), whole, strict=True))
    train.close()
    assert train.sample_keys(0, 0) is None

    plain = data.model_copy(update={"augment": AugmentSection(hflip=0.5)})
    train = TrainLoader(sets, plain, PRE, batch_size=4, seed=0, device="cpu")
    shown = [
        (number, int(t)) for images, ts in train.epoch(0) for number, t in zip(numbers_of(images), ts, strict=True)
    ]
    assert sorted(shown) == [(number, number % 3) for number in range(40)]
    assert shown != sorted(shown)
    train.close()

    batches = list(ValLoader(sets, PRE, batch_size=4, device="cpu", workers=workers))
    assert [number for images, _ in batches for number in numbers_of(images)] == list(range(50, 60))
    assert [label for _, label, _ in iter_images(sets.val, 3)] == [2, 0, 1]


def test_more_workers_than_shards(parquet: Path) -> None:
    data = section(parquet, "hfids", 7, train_split="train|40", val_split="validation|10")
    assert TrainLoader(open_data(data, 0), data, PRE, batch_size=4, seed=0, device="cpu").workers == 4


def test_streaming_errors(parquet: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)how many images 'train' has.*train\|50000"):
        open_data(section(parquet, "hfids"), 0)
    with pytest.raises(DataError, match="'many' is no number"):
        open_data(section(parquet, "hfids", train_split="train|many"), 0)
    counted = {"train_split": "train|40", "val_split": "validation|10"}
    with pytest.raises(DataError, match="names no classes"):
        open_data(DataSection(source=f"hfids/{parquet}?image=img&label=id", **counted), 0)
    with pytest.raises(DataError, match="unknown 'colour'"):
        open_data(DataSection(source=f"hfids/{parquet}?colour=img", **counted), 0)
    with pytest.raises(DataError, match="nowhere"):
        open_data(DataSection(source="hfids//nowhere", **counted), 0)


def test_random_access(parquet: Path) -> None:
    data = section(parquet, "hfds")
    sets = open_data(data, 0)
    check_data(sets)
    assert (len(sets.train), len(sets.val), sets.classes) == (40, 10, ("x", "y", "z"))
    assert [sets.val.label(index) for index in range(3)] == [2, 0, 1]
    assert np.asarray(sets.val.image(4))[0, 0].tolist() == [54, 54, 54]
    train = TrainLoader(sets, data, PRE, batch_size=4, seed=0, device="cpu")
    whole = list(train.epoch(0))
    for (images, _), (expected, _) in zip(train.epoch(0, skip_batches=6), whole[6:], strict=True):
        assert torch.equal(images, expected)
    with pytest.raises(DataError, match=r"no images in a column 'image'\. It has: img, kind, id"):
        open_data(DataSection(source=f"hfds/{parquet}?label=kind"), 0)
    with pytest.raises(DataError, match="column 'id' is no class label"):
        open_data(DataSection(source=f"hfds/{parquet}?image=img&label=id"), 0)
    with pytest.raises(DataError, match=r"no split 'all'.*train, validation"):
        open_data(section(parquet, "hfds", train_split="all"), 0)


def test_grey_and_transparent_images_become_rgb_in_both_readers(datasets, tmp_path: Path) -> None:
    grey = np.full((10, 10), 70, np.uint8)
    images = [
        Image.fromarray(grey),
        Image.fromarray(grey).convert("RGBA"),
        Image.fromarray(grey.astype(np.uint16)),
    ]
    images[1].putalpha(Image.new("L", (10, 10), 9))
    features = datasets.Features({"img": datasets.Image(), "kind": datasets.ClassLabel(names=["x", "y", "z"])})
    for split in ("train", "validation"):
        rows = {"img": images, "kind": [0, 1, 2]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{split}.parquet")
    for reader, count in (("hfds", ""), ("hfids", "|3")):
        data = section(tmp_path, reader, train_split=f"train{count}", val_split=f"validation{count}")
        for image, _, _ in iter_images(open_data(data, 0).val, 3):
            assert image.mode == "RGB"
            assert (np.asarray(image) == 70).all()


def test_image_folder_as_a_stream(datasets, write_folder) -> None:
    root = write_folder({"train/a": 6, "train/b": 6, "validation/a": 2, "validation/b": 2})
    data = DataSection(source=f"hfids/{root}", workers=0, train_split="train|12", val_split="validation|4")
    sets = open_data(data, 0)
    assert sets.classes == ("a", "b")
    train = TrainLoader(sets, data, PRE, batch_size=4, seed=0, device="cpu")
    whole = list(train.epoch(0))
    assert sorted(torch.cat([targets for _, targets in whole]).tolist()) == [0] * 6 + [1] * 6
    for (images, _), (expected, _) in zip(train.epoch(0, skip_batches=1), whole[1:], strict=True):
        assert torch.equal(images, expected)
