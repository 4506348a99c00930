"""Cells that are kept: only whole ones, only of the same thing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dskd_export.benchmark.store import FOLDER, CellStore
from dskd_export.documents.benchmark import BenchmarkRow

SAMPLES = {"key-engine": np.array([0.001, 0.002])}


def rows() -> list[BenchmarkRow]:
    return [
        BenchmarkRow(
            model="student",
            runner="onnxruntime",
            provider="cpu",
            precision="fp32",
            batch=1,
            threads=1,
            part="engine",
            latency=None,
            throughput_images_per_s=None,
            samples_key="key-engine",
        )
    ]


@pytest.fixture
def store(tmp_path: Path) -> CellStore:
    return CellStore(tmp_path, ["bundle", "settings"])


def test_a_cell_comes_back(store: CellStore, tmp_path: Path) -> None:
    assert store.get("key") is None
    store.put("key", rows(), SAMPLES)
    found = CellStore(tmp_path, ["bundle", "settings"]).get("key")
    assert found is not None
    assert found[0] == rows()
    np.testing.assert_array_equal(found[1]["key-engine"], SAMPLES["key-engine"])


def test_of_anything_else_it_is_timed_anew(store: CellStore, tmp_path: Path) -> None:
    store.put("key", rows(), SAMPLES)
    assert CellStore(tmp_path, ["bundle", "other settings"]).get("key") is None
    assert CellStore(tmp_path, ["bundle", "settings"], fresh=True).get("key") is None
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.parametrize("suffix", ["json", "npz"])
@pytest.mark.parametrize("damage", ["gone", "cut", "empty"])
def test_what_is_damaged_is_timed_anew(store: CellStore, tmp_path: Path, suffix: str, damage: str) -> None:
    store.put("key", rows(), SAMPLES)
    path = tmp_path / FOLDER / f"key.{suffix}"
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: -20 if damage == "cut" else 0])
    assert store.get("key") is None


def test_samples_of_another_cell_are_refused(store: CellStore, tmp_path: Path) -> None:
    store.put("key", rows(), SAMPLES)
    store.put("other", [rows()[0].model_copy(update={"samples_key": "else"})], {"else": np.ones(3)})
    (tmp_path / FOLDER / "other.npz").replace(tmp_path / FOLDER / "key.npz")
    assert store.get("key") is None


def test_cleared(store: CellStore, tmp_path: Path) -> None:
    store.put("key", rows(), SAMPLES)
    store.clear()
    assert not (tmp_path / FOLDER).exists()
    store.clear()
