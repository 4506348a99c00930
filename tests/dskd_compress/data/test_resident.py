from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dskd_compress.config import AugmentSection, DataSection
from dskd_compress.data import (
    ArraySet,
    DataSets,
    Preprocessing,
    StreamSet,
    TrainLoader,
    ValLoader,
    open_data,
    resident,
)
from dskd_compress.data.preprocessing import fit_transform
from dskd_export.errors import DataError, RecipeError

PRE = Preprocessing((3, 16, 16), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bicubic", 0.875, "center")
EXACT = Preprocessing((3, 16, 16), (0.0,) * 3, (1 / 255,) * 3, "bicubic", 1.0, "center")
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def arrays(count: int = 50, size: tuple[int, int] = (20, 24)) -> DataSets:
    pixels = np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)
    images = ArraySet(pixels, np.arange(count) % 5, list("abcde"), list(map(str, range(count))))
    return DataSets("arrays", images, images)


def loader(sets: DataSets, pre: Preprocessing = PRE, workers: int = 0, seed: int = 3, **augment) -> TrainLoader:
    section = DataSection(loader="resident", workers=workers, augment=AugmentSection(**augment))
    return TrainLoader(sets, section, pre, batch_size=8, seed=seed, device="cpu")


def same(one: Batches, other: Batches) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, other, strict=True)
    )


def test_without_augmentation_it_gives_what_the_workers_give() -> None:
    sets, plain = arrays(size=(16, 16)), AugmentSection(crop="pad", pad=0, hflip=0)
    both = [
        TrainLoader(
            sets, DataSection(loader=kind, workers=0, augment=plain), PRE, batch_size=8, seed=3, device="cpu"
        )
        for kind in ("resident", "workers")
    ]
    for epoch in (0, 1):
        assert same(*(list(train.epoch(epoch)) for train in both))
    assert np.array_equal(both[0].sample_keys(1, 2), both[1].sample_keys(1, 2))
    assert both[0].augmentation_digest() != both[1].augmentation_digest()


def test_pixels_are_those_of_the_pillow_pipeline_with_the_same_offsets() -> None:
    """Every pad crop is one of the 81 x 2 that torchvision's functions make of the fitted image."""
    from torchvision.transforms import functional

    sets = arrays()
    train = loader(sets, EXACT, crop="pad")
    fitted = [
        Image.fromarray(fit_transform(EXACT)(sets.train.image(i)).permute(1, 2, 0).numpy()) for i in range(50)
    ]
    seen = set()
    for number, (images, targets) in enumerate(train.epoch(0)):
        keys = train.sample_keys(0, number)
        for (_, index), image, target in zip(keys.tolist(), images, targets.tolist(), strict=True):
            assert target == sets.train.label(index)
            padded = functional.pad(fitted[index], 4)
            possible = {}
            for top in range(9):
                for left in range(9):
                    crop = functional.crop(padded, top, left, 16, 16)
                    possible[np.asarray(crop).tobytes()] = (top, left, False)
                    possible[np.asarray(functional.hflip(crop)).tobytes()] = (top, left, True)
            seen.add(possible[image.round().to(torch.uint8).permute(1, 2, 0).numpy().tobytes()])
    assert len(seen) > 30


@pytest.mark.parametrize("augment", [{"crop": "pad"}, {"vflip": 0.5, "mixup": 0.4, "cutmix": 1.0, "erase": 0.5}])
def test_resuming_gives_exactly_the_remaining_batches(augment: dict) -> None:
    sets = arrays()
    whole = list(loader(sets, **augment).epoch(4))
    torch.manual_seed(77)
    assert len(whole) == 6
    assert same(whole[2:], list(loader(sets, **augment).epoch(4, skip_batches=2)))
    assert same(whole, list(loader(sets, workers=2, **augment).epoch(4)))
    assert not same(whole, list(loader(sets, **augment).epoch(5)))
    assert not same(whole, list(loader(sets, seed=4, **augment).epoch(4)))
    if "mixup" in augment:
        assert whole[0][1].shape == (8, 5)


def test_views_come_again() -> None:
    train = loader(arrays(), views=2)
    seen: dict[tuple[int, int], torch.Tensor] = {}
    for epoch in range(4):
        for number, (images, _) in enumerate(train.epoch(epoch)):
            for key, image in zip(map(tuple, train.sample_keys(epoch, number).tolist()), images, strict=True):
                assert torch.equal(seen.setdefault(key, image), image)
    assert {view for view, _ in seen} == {0, 1}


def test_images_are_decoded_once() -> None:
    sets = arrays()
    decoded: list[int] = []
    original = sets.train.image
    sets.train.image = lambda index: decoded.append(index) or original(index)  # type: ignore[method-assign]
    train = loader(sets)
    assert decoded == []
    for epoch in range(3):
        list(train.epoch(epoch))
    assert decoded == list(range(50))


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_is_bit_for_bit_that_of_the_workers(workers: int) -> None:
    sets = arrays(21)
    expected = list(ValLoader(sets, PRE, batch_size=8, device="cpu", workers=0))
    held = ValLoader(sets, PRE, batch_size=8, device="cpu", workers=workers, resident=True)
    assert len(held) == 3
    for _ in range(2):
        assert same(list(held), expected)


def broken(write_folder) -> Path:
    root = write_folder({"train/a": 20, "train/b": 20, "val/a": 5, "val/b": 5})
    for name in ("train/a/3.png", "train/b/7.png", "val/b/1.png"):
        (root / name).write_bytes(b"no image")
    return root


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_named_and_replaced_as_by_the_workers(write_folder, workers: int) -> None:
    source = str(broken(write_folder))
    plain = AugmentSection(crop="pad", pad=0, hflip=0)
    loaders = []
    for kind in ("resident", "workers"):
        section = DataSection(source=source, loader=kind, workers=workers, max_unreadable=0.1, augment=plain)
        sets = open_data(section, 0)
        loaders.append(TrainLoader(sets, section, PRE, batch_size=8, seed=3, device="cpu"))
    for epoch in (0, 1):
        assert same(*(list(train.epoch(epoch)) for train in loaders))
    assert sorted(loaders[0].skipped) == sorted(loaders[1].skipped) == ["train/a/3.png", "train/b/7.png"]
    loaders[1].close()
    val = ValLoader(sets, PRE, batch_size=4, device="cpu", workers=workers, resident=True)
    assert [len(images) for images, _ in val] == [4, 3, 2]
    assert val.skipped == ["val/b/1.png"]


def test_too_many_unreadable_images(write_folder) -> None:
    section = DataSection(source=str(broken(write_folder)), loader="resident", workers=0)
    sets = open_data(section, 0)
    with pytest.raises(DataError, match="cannot be read, more than"):
        list(TrainLoader(sets, section, PRE, batch_size=8, seed=3, device="cpu").epoch(0))
    with pytest.raises(DataError, match=r"val/b/1\.png"):
        list(ValLoader(sets, PRE, batch_size=4, device="cpu", workers=0, resident=True))
    for path in Path(section.source).rglob("*.png"):
        path.write_bytes(b"")
    tolerant = DataSection(source=section.source, loader="resident", workers=0, max_unreadable=1.0)
    with pytest.raises(DataError, match="drawn in its place are unreadable"):
        list(TrainLoader(open_data(tolerant, 0), tolerant, PRE, batch_size=8, seed=3, device="cpu").epoch(0))


def test_refuses_what_does_not_fit(monkeypatch) -> None:
    sets = arrays(5000, size=(4, 4))
    need = 5000 * 3 * 16 * 16  # bytes, of each of the two sets
    monkeypatch.setattr(resident, "available_memory", lambda: 4 * need)
    loader(sets)
    monkeypatch.setattr(resident, "available_memory", lambda: 3 * need)
    with pytest.raises(DataError, match=r"10000 images of 3x16x16 take 8 MB; 6 MB are available.*data\.loader"):
        loader(sets)
    ValLoader(sets, PRE, batch_size=8, device="cpu", workers=0, resident=True)
    monkeypatch.setattr(resident, "available_memory", lambda: need)
    with pytest.raises(DataError, match="5000 images"):
        ValLoader(sets, PRE, batch_size=8, device="cpu", workers=0, resident=True)
    monkeypatch.setattr(resident, "available_memory", lambda: None)  # not known: nothing to refuse by
    loader(sets)


def test_refuses_streams_and_single_image_augmentation() -> None:
    stream = StreamSet("wds/x", "train", ("a", "b"), 10)
    with pytest.raises(RecipeError, match=r"data\.loader: a stream"):
        loader(DataSets("wds/x", stream, stream))
    with pytest.raises(RecipeError, match=r"data\.augment\.color_jitter"):
        loader(arrays(), color_jitter=0.4)
