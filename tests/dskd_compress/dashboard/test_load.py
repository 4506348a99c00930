"""The load of the machine, with and without NVML."""

from __future__ import annotations

import re
import time

import pytest

from dskd_compress.dashboard import load
from dskd_compress.dashboard.load import Load
from dskd_export.telemetry.reading import Reading, SourceError


class Gpu:
    closed = False

    def __init__(self, index: int) -> None:
        self.index = index

    def read(self) -> Reading:
        return Reading(
            power_w={"GPU": 212.4}, temperatures_c={"gpu": 71.0}, throttling=frozenset({"power cap of the GPU"})
        )

    def load(self) -> float | None:
        return 0.97

    def memory_used_mb(self) -> float | None:
        return 12_340.0

    def close(self) -> None:
        Gpu.closed = True


def test_the_cpu_is_busy_while_it_works() -> None:
    with Load("cpu") as watched:
        end = time.perf_counter() + 0.3
        while time.perf_counter() < end:
            pass
        (line,) = watched.describe()
    found = re.fullmatch(r"CPU  ([\d.]+) of \d+ cores busy", line)
    assert found
    assert float(found[1]) >= 0.3


def test_a_gpu_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "NvmlSource", Gpu)
    with Load("cuda:1") as watched:
        assert watched.describe()[1] == "GPU  97 % busy, 71 °C, 212 W, 12.3 GB used, power cap of the GPU"
    assert Gpu.closed


def test_a_gpu_that_cannot_be_asked_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(index: int) -> Gpu:
        raise SourceError("NVML does not start: Driver Not Loaded")

    monkeypatch.setattr(load, "NvmlSource", refuse)
    with Load("cuda:0") as watched:
        assert watched.describe()[1] == "GPU  NVML does not start: Driver Not Loaded"
