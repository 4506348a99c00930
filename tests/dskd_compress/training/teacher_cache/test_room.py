"""Refused with the number, or told what it takes."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from dskd_compress.training.teacher_cache.key import CachedOutput, ImageFacts
from dskd_compress.training.teacher_cache.room import RESERVE_BYTES, find_room, output_folder
from dskd_compress.training.teacher_cache.rows import open_rows
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


def test_it_tells_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = disk(monkeypatch, NEEDED + RESERVE_BYTES)
    room = find_room(tmp_path / "not" / "there", OUTPUTS, IMAGES, None)
    assert (room.total, room.new, room.free) == (NEEDED, NEEDED, NEEDED + RESERVE_BYTES)
    assert asked == [tmp_path]
    assert list(tmp_path.iterdir()) == []


def test_a_small_disk_is_refused_with_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, NEEDED + RESERVE_BYTES - 1)
    with pytest.raises(EnvironmentProblem) as caught:
        find_room(tmp_path, OUTPUTS, IMAGES, None)
    message = caught.value.message
    assert f"{NEEDED / 1e9:.2f} GB" in message
    assert "40.22 GB: 4 views of 50,000 images, 201.1 kB each" in message
    assert "40.72 GB are free" in message
    assert str(tmp_path) in message
    for key in ("data.augment.views", "teacher.cache.features", "teacher.cache.folder", "teacher.cache.enabled"):
        assert key in (caught.value.hint or "")


def test_a_limit_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, 10**13)
    with pytest.raises(EnvironmentProblem, match=r"needs 40\.22 GB.*max_gb allows 40\.00 GB"):
        find_room(tmp_path, OUTPUTS, IMAGES, 40.0)
    assert find_room(tmp_path, OUTPUTS, IMAGES, 41.0).total == NEEDED


def test_what_is_there_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = ImageFacts("data", "augmentation", {}, 10, 2)
    outputs = [CachedOutput("logits_BK", (3,), "float32", {}), CachedOutput("feat", (5,), "float16", {})]
    open_rows(output_folder(tmp_path, outputs[0]), images.rows, outputs[0].shape, outputs[0].dtype, {})
    disk(monkeypatch, RESERVE_BYTES)
    with pytest.raises(EnvironmentProblem, match="are still to be written"):
        find_room(tmp_path, outputs, images, None)
    disk(monkeypatch, RESERVE_BYTES + 20 * (5 * 2 + 4))
    room = find_room(tmp_path, outputs, images, None)
    assert (room.total, room.new) == (20 * (3 * 4 + 4 + 5 * 2 + 4), 20 * (5 * 2 + 4))
    open_rows(output_folder(tmp_path, outputs[1]), images.rows, outputs[1].shape, outputs[1].dtype, {})
    disk(monkeypatch, 0)
    assert find_room(tmp_path, outputs, images, None).new == 0
