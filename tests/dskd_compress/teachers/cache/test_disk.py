"""A cache that does not fit its disk is refused with the numbers."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dskd_compress.teachers.cache import disk as disk_module
from dskd_compress.teachers.cache.disk import RESERVE_BYTES, check_disk, locate_output, open_outputs
from dskd_compress.teachers.cache.key import CachedOutput, ImageFacts
from dskd_compress.teachers.cache.rows import RowStore, open_rows
from dskd_export.errors import EnvironmentProblem

IMAGES = ImageFacts("data", "augmentation", {}, 50_000, 4)
OUTPUTS = [
    CachedOutput("logits_BK", (100,), "float32", {"is": "logits"}),
    CachedOutput("feat", (2048, 7, 7), "float16", {"is": "feat"}),
]
# 4 views of 50,000 images, each 100 floats and 2048x7x7 halves and two checksums.
NEEDED = 4 * 50_000 * (100 * 4 + 4 + 2048 * 49 * 2 + 4)


def disk(monkeypatch: pytest.MonkeyPatch, free: int) -> list[Path]:
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(Path(path))
        return SimpleNamespace(total=10**13, used=0, free=free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    return asked


def test_it_measures_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = disk(monkeypatch, NEEDED + RESERVE_BYTES)
    room = check_disk(tmp_path / "not" / "there", OUTPUTS, IMAGES, None)
    assert (room.total, room.new, room.free) == (NEEDED, NEEDED, NEEDED + RESERVE_BYTES)
    assert asked == [tmp_path]
    assert list(tmp_path.iterdir()) == []


def test_a_small_disk_is_refused_with_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, NEEDED + RESERVE_BYTES - 1)
    with pytest.raises(EnvironmentProblem) as caught:
        check_disk(tmp_path, OUTPUTS, IMAGES, None)
    message = caught.value.message
    assert f"{NEEDED / 1e9:.2f} GB" in message
    assert "40.22 GB: 4 views of 50,000 images, 201.1 kB each" in message
    assert "40.72 GB are free" in message
    assert str(tmp_path) in message
    for key in ("data.augment.views", "teacher.cache.features", "teacher.cache.folder", "teacher.cache.enabled"):
        assert key in (caught.value.hint or "")


def test_a_limit_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, 10**13)
    with pytest.raises(EnvironmentProblem, match=r"40\.22 GB.*teacher\.cache\.max_gb.*40\.00 GB"):
        check_disk(tmp_path, OUTPUTS, IMAGES, 40.0)
    assert check_disk(tmp_path, OUTPUTS, IMAGES, 41.0).total == NEEDED


def test_what_is_there_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = ImageFacts("data", "augmentation", {}, 10, 2)
    outputs = [CachedOutput("logits_BK", (3,), "float32", {}), CachedOutput("feat", (5,), "float16", {})]
    open_rows(locate_output(tmp_path, outputs[0]), images.rows, outputs[0].shape, outputs[0].dtype, {})
    disk(monkeypatch, RESERVE_BYTES)
    with pytest.raises(EnvironmentProblem, match=r"teacher\.cache\.folder"):
        check_disk(tmp_path, outputs, images, None)
    disk(monkeypatch, RESERVE_BYTES + 20 * (5 * 2 + 4))
    room = check_disk(tmp_path, outputs, images, None)
    assert (room.total, room.new) == (20 * (3 * 4 + 4 + 5 * 2 + 4), 20 * (5 * 2 + 4))
    stores = open_outputs(tmp_path, outputs, images)
    assert {name: (len(store), store.shape, store.dtype.name) for name, store in stores.items()} == {
        "logits_BK": (20, (3,), "float32"),
        "feat": (20, (5,), "float16"),
    }
    disk(monkeypatch, 0)
    assert check_disk(tmp_path, outputs, images, None).new == 0
    assert open_outputs(tmp_path, outputs, images).keys() == stores.keys()


def test_what_does_not_fit_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, NEEDED)
    with pytest.raises(EnvironmentProblem, match=r"teacher\.cache\.folder"):
        open_outputs(tmp_path / "caches", OUTPUTS, IMAGES)
    assert [path.name for path in (tmp_path / "caches").iterdir()] == [".lock"]


def test_two_that_ask_at_once_take_the_room_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one takes it the other waits, and then finds it there instead of missing."""
    outputs = [CachedOutput("logits_BK", (1000,), "float32", {})]
    images = ImageFacts("data", "augmentation", {}, 100, 1)
    size = 100 * (1000 * 4 + 4)

    def usage(path: Path) -> SimpleNamespace:
        taken = sum(file.stat().st_blocks * 512 for file in tmp_path.rglob("*.npy"))
        return SimpleNamespace(total=10**13, used=taken, free=RESERVE_BYTES + size + 20_000 - taken)

    real = disk_module.open_rows

    def slowly(*arguments: Any) -> RowStore:
        store = real(*arguments)
        time.sleep(0.1)
        return store

    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.setattr(disk_module, "open_rows", slowly)
    with ThreadPoolExecutor(2) as pool:
        stores = list(pool.map(lambda _: open_outputs(tmp_path, outputs, images), range(2)))
    assert [len(store["logits_BK"]) for store in stores] == [100, 100]
