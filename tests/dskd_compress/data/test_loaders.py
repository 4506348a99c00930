from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
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
    TrainLoader,
    UnreadableImage,
    ValLoader,
    eval_transform,
    explain_worker_death,
    iter_images,
    open_data,
)
from dskd_export.errors import DataError, EnvironmentProblem, RecipeError

PRE = Preprocessing((3, 16, 16), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear", 0.875, "center")
# Every source of randomness: Python's, numpy's and torch's.
AUGMENT = AugmentSection(hflip=0.5, vflip=0.5, color_jitter=0.3)


def arrays(count: int = 50, classes: int = 5, source: str = "arrays") -> DataSets:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 20, 24, 3), np.uint8)
    images = ArraySet(
        pixels, np.arange(count) % classes, [f"c{k}" for k in range(classes)], list(map(str, range(count)))
    )
    return DataSets(source, images, images)


def section(**keys) -> DataSection:
    return DataSection(**{"workers": 0, "augment": AUGMENT, **keys})


def loader(sets: DataSets, data: DataSection | None = None, **keys) -> TrainLoader:
    return TrainLoader(sets, data or section(), PRE, **{"batch_size": 8, "seed": 3, "device": "cpu", **keys})


def same(one: list, other: list) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, other, strict=True)
    )


def test_an_epoch_shows_every_image_once_and_drops_the_rest() -> None:
    sets = arrays(50)
    plain = AugmentSection(hflip=0, scale=(1.0, 1.0), ratio=(1.2, 1.2))  # the whole image, always the same
    train = loader(sets, section(augment=plain))
    batches = list(train.epoch(0))
    assert len(train) == len(batches) == 6
    images = torch.cat([images for images, _ in batches])
    assert images.dtype == torch.float32
    assert images.shape == (48, 3, 16, 16)
    assert len({image.numpy().tobytes() for image in images}) == 48
    assert all(targets.dtype == torch.int64 for _, targets in batches)
    # A target belongs to its image: the order of epoch 1 finds the same pairs.
    pairs = {image.numpy().tobytes(): int(t) for xs, ts in batches for image, t in zip(xs, ts, strict=True)}
    for xs, ts in train.epoch(1):
        for image, target in zip(xs, ts, strict=True):
            assert pairs.get(image.numpy().tobytes(), int(target)) == int(target)


def test_normalised_by_mean_and_std() -> None:
    grey = ArraySet(np.full((8, 20, 20, 3), 51, np.uint8), np.zeros(8, np.int64), ["a"], ["n"] * 8)
    images, _ = next(loader(DataSets("grey", grey, grey), section(augment=AugmentSection())).epoch(0))
    expected = (0.2 - np.array(PRE.mean)) / np.array(PRE.std)
    assert torch.allclose(images, torch.tensor(expected, dtype=torch.float32).view(1, 3, 1, 1).expand_as(images))


@pytest.mark.parametrize(
    "augment", [AUGMENT, AugmentSection(auto_augment="rand-m9-mstd0.5", erase=0.5, mixup=0.4, cutmix=1.0)]
)
def test_resuming_gives_exactly_the_remaining_batches(augment: AugmentSection) -> None:
    sets, data = arrays(), section(augment=augment)
    whole = list(loader(sets, data).epoch(4))
    random.seed(77)
    np.random.seed(77)
    torch.manual_seed(77)
    assert same(whole[2:], list(loader(sets, data).epoch(4, skip_batches=2)))
    assert same(whole[5:], list(loader(sets, data).epoch(4, skip_batches=5)))
    assert list(loader(sets, data).epoch(4, skip_batches=6)) == []
    assert not same(whole, list(loader(sets, data).epoch(5)))
    assert not same(whole, list(loader(sets, data, seed=4).epoch(4)))


@pytest.mark.parametrize("workers", [0, 2])
def test_views_come_again_in_another_order(workers: int) -> None:
    sets = arrays()
    train = loader(sets, section(augment=AugmentSection(color_jitter=0.3, views=3), workers=workers))
    fresh = loader(sets, section(augment=AugmentSection(color_jitter=0.3)))
    seen: dict[tuple[int, int], torch.Tensor] = {}
    met_again = 0
    orders = []
    for epoch in (-1, 0, 1, 2, 3, 5, 6):
        orders.append([])
        for number, (images, targets) in enumerate(train.epoch(epoch, skip_batches=1), 1):
            keys = train.sample_keys(epoch, number)
            assert keys.dtype == np.int64
            assert keys.shape == (8, 2)
            assert set(keys[:, 0]) == {epoch % 3}
            assert [sets.train.label(index) for index in keys[:, 1]] == targets.tolist()
            orders[-1] += keys[:, 1].tolist()
            for key, image in zip(map(tuple, keys.tolist()), images, strict=True):
                met_again += key in seen
                assert torch.equal(seen.setdefault(key, image), image)
    assert met_again > 100
    assert len({tuple(order) for order in orders}) == 7
    assert {view for view, _ in seen} == {0, 1, 2}
    same_image = [seen[view, 0] for view in range(3) if (view, 0) in seen]
    assert len(same_image) > 1
    assert not torch.equal(same_image[0], same_image[1])
    # The first views are those of a run without the key; there every epoch is a view.
    keys = fresh.sample_keys(2, 0)
    images, _ = next(fresh.epoch(2))
    both = [(seen[2, k], x) for (_, k), x in zip(keys.tolist(), images, strict=True) if (2, k) in seen]
    assert both
    assert all(torch.equal(one, other) for one, other in both)
    assert fresh.sample_keys(7, 0)[0, 0] == 7
    train.close()


def test_no_keys_where_batches_do_not_come_again() -> None:
    for keys in ({"mixup": 0.1}, {"cutmix": 0.1}, {"erase": 0.1}):
        assert loader(arrays(), section(augment=AugmentSection(**keys))).sample_keys(0, 0) is None


def test_digest_tells_pixels_apart() -> None:
    sets = arrays()

    def digest(pre: Preprocessing = PRE, seed: int = 3, **augment: object) -> str:
        data = section(augment=AugmentSection(**augment))
        return TrainLoader(sets, data, pre, batch_size=8, seed=seed, device="cpu").augmentation_digest()

    others = [
        digest(hflip=0.1),
        digest(crop="pad"),
        digest(crop="pad", pad=2),
        digest(seed=4),
        digest(replace(PRE, interpolation="bicubic")),
        digest(replace(PRE, mean=(0.5, 0.5, 0.5))),
    ]
    assert len({digest(), *others}) == 7
    assert digest() == digest(views=5)


def test_skipped_batches_are_not_decoded() -> None:
    sets = arrays()
    decoded: list[int] = []
    original = sets.train.image
    sets.train.image = lambda index: decoded.append(index) or original(index)  # type: ignore[method-assign]
    list(loader(sets).epoch(0, skip_batches=4))
    assert len(decoded) == 16


def test_workers_change_nothing() -> None:
    sets = arrays()
    alone = loader(sets)
    together = loader(sets, section(workers=2))
    for epoch, skip in ((0, 0), (1, 3)):
        assert same(list(alone.epoch(epoch, skip)), list(together.epoch(epoch, skip)))
    # An epoch that was broken off leaves nothing behind in the workers.
    next(together.epoch(2))
    assert same(list(alone.epoch(3)), list(together.epoch(3)))
    together.close()
    assert same(list(alone.epoch(5)), list(together.epoch(5)))
    together.close()


def test_training_keeps_its_own_random_numbers() -> None:
    train = loader(arrays(), section(augment=AugmentSection(color_jitter=0.4, erase=1.0, mixup=1.0)))

    def draw(batches: bool) -> list[float]:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        if batches:
            list(train.epoch(0))
            list(ValLoader(arrays(), PRE, batch_size=8, device="cpu", workers=0))
        return [random.random(), np.random.rand(), torch.rand(()).item()]

    assert draw(True) == draw(False)


def test_mixing_gives_soft_targets() -> None:
    train = loader(arrays(classes=5), section(augment=AugmentSection(mixup=1.0)))
    for images, targets in train.epoch(0):
        assert images.shape == (8, 3, 16, 16)
        assert targets.shape == (8, 5)
        assert torch.allclose(targets.sum(1), torch.ones(8))
        assert (targets > 0).sum(1).max() <= 2
        assert (targets == 0).sum() >= 8 * 3  # no smoothing
    with pytest.raises(RecipeError, match="7 is odd"):
        loader(arrays(), section(augment=AugmentSection(cutmix=1.0)), batch_size=7)


def test_erasing_paints_the_mean() -> None:
    plain = section(augment=AugmentSection())
    erased = section(augment=AugmentSection(erase=1.0))
    for (before, _), (after, _) in zip(
        loader(arrays(), plain).epoch(0), loader(arrays(), erased).epoch(0), strict=True
    ):
        changed = before != after
        assert changed.any(3).any(2).any(1).all()
        assert (after[changed] == 0).all()


@pytest.mark.parametrize(("images", "most"), [(7, 4), (5, 4), (4, 4), (2, 2), (1, None)])
def test_fewer_images_than_a_batch(images: int, most: int | None) -> None:
    with pytest.raises(DataError, match=rf"{images} training images.*one batch of 8") as caught:
        loader(arrays(images), batch_key="teacher.train.batch_size")
    _, _, pasted = str(caught.value.hint).partition(" --set ")
    assert pasted == ("" if most is None else f"teacher.train.batch_size={most}")


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_order_and_last_batch(workers: int) -> None:
    sets = arrays(21)
    val = ValLoader(sets, PRE, batch_size=8, device="cpu", workers=workers)
    transform = eval_transform(PRE)
    for _ in range(2):
        batches = list(val)
        assert [len(images) for images, _ in batches] == [8, 8, 5]
        images = torch.cat([images for images, _ in batches])
        assert all(torch.equal(images[i], transform(sets.val.image(i))) for i in range(21))
        assert torch.cat([targets for _, targets in batches]).tolist() == [i % 5 for i in range(21)]
    assert len(val) == 3


def broken_folder(write_folder, per_class: int = 20) -> Path:
    """40 images; two of them truncated or no image at all."""
    root = write_folder({"train/a": per_class, "train/b": per_class, "val/a": 5, "val/b": 5})
    noise = np.random.default_rng(1).integers(0, 256, (60, 60, 3), np.uint8)
    for name in ("train/a/3.png", "val/b/1.png"):
        (root / name).unlink()
        path = (root / name).with_suffix(".jpg")
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:1500])
    (root / "train/b/7.png").write_bytes(b"no image")
    return root


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_named_and_replaced(write_folder, workers: int) -> None:
    data = section(source=str(broken_folder(write_folder)), workers=workers, max_unreadable=0.1)
    sets = open_data(data, 0)
    train = loader(sets, data)
    batches = list(train.epoch(0))
    assert [len(images) for images, _ in batches] == [8] * 5
    assert sorted(train.skipped) == ["train/a/3.jpg", "train/b/7.png"]
    list(train.epoch(1))
    assert len(train.skipped) == 2  # counted once, not once an epoch
    assert same(batches[1:], list(loader(sets, data).epoch(0, skip_batches=1)))
    train.close()

    val = ValLoader(sets, PRE, batch_size=4, device="cpu", workers=workers)
    assert [len(images) for images, _ in val] == [4, 3, 2]
    assert val.skipped == ["val/b/1.jpg"]
    assert sets.facts(val.skipped).skipped == ["val/b/1.jpg"]


def test_a_batch_without_readable_images_is_left_out(write_folder) -> None:
    data = section(source=str(broken_folder(write_folder)), max_unreadable=0.1)
    val = ValLoader(open_data(data, 0), PRE, batch_size=1, device="cpu", workers=0)
    assert [len(images) for images, _ in val] == [1] * 9


def test_too_many_unreadable_images(write_folder) -> None:
    data = section(source=str(broken_folder(write_folder)), max_unreadable=0.03)  # 1 of 40, 0 of 10
    sets = open_data(data, 0)
    with pytest.raises(DataError) as caught:
        list(loader(sets, data).epoch(0))
    for part in (
        "2 of 40 images",
        "0.03",
        "--set data.max_unreadable=0.05",
        "train/a/3.jpg (image file is truncated",
        "train/b/7.png",
    ):
        assert part in str(caught.value)
    with pytest.raises(DataError, match=r"1 of 10 images.*val/b/1\.jpg"):
        list(ValLoader(sets, PRE, batch_size=4, device="cpu", workers=0))


def test_all_of_them_are_named_where_the_first_stops_the_run(write_folder, monkeypatch) -> None:
    sets = open_data(section(source=str(broken_folder(write_folder)), max_unreadable=0), 0)
    drawn = iter_images(sets.train, max_unreadable=0)
    with pytest.raises(DataError, match=r" 2 of 40 images .*train/a/3\.jpg \(.*; train/b/7\.png \(") as caught:
        list(drawn)
    assert "--set data.max_unreadable=0.05" in (caught.value.hint or "")
    monkeypatch.setattr("dskd_export.runtime.images._SEARCH_S", -1.0)
    with pytest.raises(DataError, match=r"at least 1 of 40 images .*train/a/3\.jpg"):
        list(iter_images(sets.train, max_unreadable=0))


def test_the_default_tolerates_one_in_a_thousand() -> None:
    class Broken(ArraySet):
        bad: frozenset[int] = frozenset({5})

        def image(self, index: int) -> Image.Image:
            if index in self.bad:
                raise UnreadableImage(self.name(index), "broken")
            return super().image(index)

    images = Broken(np.zeros((1437, 4, 4), np.uint8), np.zeros(1437, np.int64), ["a"], list(map(str, range(1437))))
    sets = DataSets("zeros", images, images)
    val = ValLoader(sets, PRE, batch_size=500, device="cpu", workers=0)
    assert sum(len(targets) for _, targets in val) == 1436
    images.bad = frozenset({5, 6})
    with pytest.raises(DataError, match=r"2 of 1437 images.*0\.001"):
        list(ValLoader(sets, PRE, batch_size=500, device="cpu", workers=0))
    images.bad = frozenset(range(1437))
    with pytest.raises(DataError, match="cannot be read"):
        list(loader(sets).epoch(0))
    tolerant = DataSets("zeros", images, images, max_unreadable=1.0)
    with pytest.raises(DataError, match="drawn in its place are unreadable"):
        list(loader(tolerant).epoch(0))


@pytest.mark.parametrize("kind", ["bomb", "16 bit", "gone", "empty"])
def test_other_unreadable_images(write_folder, kind: str, monkeypatch) -> None:
    root = write_folder({"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1})
    path = root / "val/a/0.png"
    sets = open_data(section(source=str(root)), 0)
    if kind == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
        part = "decompression bomb"
    elif kind == "16 bit":
        Image.fromarray(np.full((9, 9), 999, np.uint16)).save(path)
        part = "I;16"
    elif kind == "gone":
        path.unlink()
        part = "No such file"
    else:
        path.write_bytes(b"")
        part = "cannot identify image file"
    with pytest.raises(UnreadableImage, match=f"val/a/0.png: .*{part}"):
        sets.val.image(0)


def test_iter_images_spreads_over_classes(write_folder) -> None:
    sets = arrays(50, classes=5)
    chosen = list(iter_images(sets.val, 7, seed=0))
    assert len({name for _, _, name in chosen}) == 7
    assert {label for _, label, _ in chosen[:5]} == set(range(5))
    assert [name for *_, name in chosen] == [name for *_, name in iter_images(sets.val, 7, seed=0)]
    assert [name for *_, name in chosen] != [name for *_, name in iter_images(sets.val, 7, seed=1)]
    assert [name for *_, name in iter_images(sets.val, None)] == list(map(str, range(50)))
    assert len(list(iter_images(sets.val, 99))) == 50

    sets = open_data(section(source=str(broken_folder(write_folder))), 0)
    skipped: list[str] = []
    kept = list(iter_images(sets.val, None, max_unreadable=0.1, skipped=skipped))
    assert (len(kept), skipped) == (9, ["val/b/1.jpg"])
    with pytest.raises(DataError, match=r"val/b/1\.jpg"):
        list(iter_images(sets.val, None))


class Dying(ArraySet):
    def image(self, index: int) -> Image.Image:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().image(index)


def test_dead_worker_names_the_key() -> None:
    whole = arrays().train
    images = Dying(whole.pixels_NHWC, whole.labels, whole.classes, whole.names)
    train = loader(DataSets("dying", images, images), section(workers=1))
    with pytest.raises(EnvironmentProblem, match=r"(?s)died.*data\.workers \(now 1\)"):
        list(train.epoch(0))
    with pytest.raises(RuntimeError, match="another"), explain_worker_death(1):
        raise RuntimeError("another")


SCRIPT = """
    import os, signal, sys, time
    import numpy as np
    from dskd_compress.config import DataSection
    from dskd_compress.data import ArraySet, DataSets, Preprocessing, TrainLoader
    pixels = np.zeros((64, 20, 20, 3), np.uint8)
    images = ArraySet(pixels, np.zeros(64, np.int64), ["a"], list(map(str, range(64))))
    pre = Preprocessing((3, 16, 16), (0.5,) * 3, (0.2,) * 3, "bilinear", 1.0, "center")
    sets = DataSets("s", images, images)
    train = TrainLoader(sets, DataSection(workers=2), pre, batch_size=4, seed=0, device="cpu")
    caught = []
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, lambda number, frame: caught.append(number))
    count = 0
    for images, targets in train.epoch(0):
        count += 1
        if count in (2, 5):
            # What a terminal and a batch scheduler do: the whole process group.
            os.killpg(0, signal.SIGINT if count == 2 else signal.SIGTERM)
            time.sleep(0.2)
    assert caught == [signal.SIGINT, signal.SIGTERM], caught
    assert count == 16, count
    held = train.epoch(1)
    next(held)
    print("done")
"""


def test_signals_to_the_group_leave_the_workers_to_the_parent() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, "done", "")
