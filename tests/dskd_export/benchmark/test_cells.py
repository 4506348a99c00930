"""Timing of a runner that does nothing but wait, on a planted board."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partialmethod
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dskd_export.benchmark import cells as cells_module
from dskd_export.benchmark.cells import Cell, time_cells
from dskd_export.errors import ProviderLacksKernel
from dskd_export.runtime.runner import Array, RunnerFacts
from dskd_export.settings import BenchmarkSettings
from dskd_export.spec import ModelSpec
from dskd_export.telemetry import monitor
from dskd_export.telemetry.reading import Reading, Total

SETTINGS = BenchmarkSettings(min_seconds=1.0, min_iterations=10, max_warmup_seconds=0.1)


class Waiting:
    """A runner whose calls take 10 ms and no processor."""

    name = "waiting"
    facts = RunnerFacts("onnxruntime", "1", "cpu", "fp32", threads=1)

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def infer(self, feed: Any) -> dict[str, Array]:
        time.sleep(0.01)
        return {"logits": np.zeros((1, 3), dtype=np.float32)}


class Board:
    """A device of 4 W at rest and 12 W at work, whose clock then falls and falls."""

    name, reason, total = "a board", "", Total(("VDD_IN",), "the module")
    works_since = float("inf")
    closed = False

    def read(self) -> Reading:
        worked_s = time.perf_counter() - self.works_since
        if worked_s < 0:
            return Reading(power_w={"VDD_IN": 4.0}, clocks_mhz={"cpu": 2000.0})
        return Reading(power_w={"VDD_IN": 12.0}, clocks_mhz={"cpu": 2000.0 * math.exp(-worked_s)})

    def others(self) -> list[str]:
        return []

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def cell(make_spec: Callable[..., ModelSpec]) -> Cell:
    return Cell("student", "onnxruntime", "cpu", "fp32", 4, make_spec(), Waiting)


def test_energy_and_a_clock_that_falls(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    real = cells_module.measure_latency

    def measured(*args: Any, **kwargs: Any) -> Any:
        board.works_since = time.perf_counter()
        return real(*args, **kwargs)

    monkeypatch.setattr(cells_module, "measure_latency", measured)
    monkeypatch.setattr(monitor, "open_source", lambda device, root: board)
    names: list[str] = []
    images = [Image.new("RGB", (32, 32))]
    rows, samples = time_cells([cell], images, SETTINGS, lambda: None, names.append)
    assert names == ["power at rest", "student onnxruntime cpu fp32 batch 4"]
    assert [row.part for row in rows] == ["engine", "with_preprocessing"]
    for row in rows:
        energy, latency = row.energy, row.latency
        assert energy is not None
        assert latency is not None
        assert energy.seconds is not None
        assert energy.images == 4 * latency.iterations
        assert (energy.mean_w, energy.idle_w) == (pytest.approx(12.0), pytest.approx(4.0))
        assert row.energy_per_image_mj is not None
        expected = 1e3 * 12 * energy.seconds / energy.images
        assert row.energy_per_image_mj.value == pytest.approx(expected)
        assert energy.above_idle_per_image_mj is not None
        assert energy.above_idle_per_image_mj.value == pytest.approx(expected * 8 / 12)
        # What was timed, and a little more between the calls; neither warm-up nor opening.
        timed_s = samples[row.samples_key or ""].sum()
        assert timed_s <= energy.seconds <= 1.2 * timed_s
        assert not latency.stable
        assert "the clock of the CPU fell from " in latency.reason
    assert board.closed


def test_a_provider_that_cannot(cell: Cell, make_spec: Callable[..., ModelSpec]) -> None:
    def lacking() -> Waiting:
        raise ProviderLacksKernel("it cannot compute in int8")

    quick = BenchmarkSettings(min_seconds=0.01, min_iterations=10, max_warmup_seconds=0.01)
    images = [Image.new("RGB", (32, 32))]
    optional = Cell("student", "onnxruntime", "cpu", "int8", 4, make_spec(), lacking, required=False)
    rows, samples = time_cells([optional, cell], images, quick, lambda: None, lambda _: None)
    assert [(row.precision, row.unavailable, row.latency is None) for row in rows] == [
        *[("int8", "it cannot compute in int8", True)] * 2,
        *[("fp32", "", False)] * 2,
    ]
    assert len(samples) == 2
    required = Cell("student", "onnxruntime", "cpu", "int8", 4, make_spec(), lacking)
    with pytest.raises(ProviderLacksKernel):
        time_cells([required], images, quick, lambda: None, lambda _: None)


@pytest.mark.parametrize(
    ("throttling", "other_cores", "cause"),
    [
        (frozenset({"thermal zone soc"}), 0.0, "clocks were held down: thermal zone soc"),
        (frozenset(), 1.5, "other processes kept 1.5 of "),
        (frozenset(), 0.0, ""),
    ],
)
def test_what_is_planted_beside_a_row_makes_it_unstable(
    cell: Cell, monkeypatch: pytest.MonkeyPatch, throttling: frozenset[str], other_cores: float, cause: str
) -> None:
    class Steady(Board):
        def read(self) -> Reading:
            return Reading(clocks_mhz={"cpu": 2000.0}, throttling=throttling)

    monkeypatch.setattr(monitor.Monitor, "measure_idle", partialmethod(monitor.Monitor.measure_idle, 0.1))
    monkeypatch.setattr(monitor, "open_source", lambda device, root: Steady())
    monkeypatch.setattr(monitor, "other_cores", lambda before, after: other_cores)
    settings = BenchmarkSettings(min_seconds=0.3, min_iterations=10, max_warmup_seconds=0.3)
    rows, _ = time_cells([cell], [Image.new("RGB", (32, 32))], settings, lambda: None, lambda _: None)
    for row in rows:
        assert row.latency is not None
        assert (cause in row.latency.reason) is True
        assert row.latency.stable is (not row.latency.reason)
        if cause:
            assert not row.latency.stable
