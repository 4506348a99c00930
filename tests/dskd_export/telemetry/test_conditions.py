from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dskd_export.documents.benchmark import Course
from dskd_export.telemetry.conditions import (
    list_clock_changes,
    list_neighbours,
    list_throttling,
    select_readings,
    summarize,
)
from dskd_export.telemetry.reading import Reading
from dskd_export.telemetry.sampler import Trace
from dskd_export.telemetry.usage import CpuTime, busy_cores, cpu_time, other_cores, parse_busy_ticks


def clocked(name: str, *clocks: float | None) -> list[Reading]:
    return [Reading(clocks_mhz={} if clock is None else {name: clock}) for clock in clocks]


@pytest.mark.parametrize(
    ("device", "readings", "expected"),
    [
        ("cuda:0", clocked("gpu", *[1020] * 4, *[800] * 3, *[612] * 3), ["the GPU fell from 1020 MHz"]),
        ("cuda:0", clocked("gpu", *[306] * 5, *[1300] * 5), ["the GPU rose from 306 MHz"]),
        ("cuda:0", clocked("gpu", *[1000] * 5, *[910] * 5), []),  # within 10 %
        ("cuda:0", clocked("gpu", 1000, 1000, 1000, 300, 1000, 1000, 1000, 1000, 1000), []),  # a dip
        ("cuda:0", clocked("cpu", *[2000] * 5, *[1000] * 5), []),  # not what a GPU is timed by
        ("cpu", clocked("cpu", *[2000] * 5, *[1000] * 5), ["the CPU fell from 2000 MHz"]),
        ("cpu", clocked("gpu", *[2000] * 5, *[1000] * 5), []),
        ("cpu", clocked("emc", *[3199] * 5, *[2133] * 5), ["the memory controller fell from 3199 MHz"]),
        ("cpu", clocked("cpu", None, 2000, 2000, 2000, 2000, None), []),
        ("cpu", clocked("cpu", None, None, 2000, 2000, 900, 900), []),  # not told in the first third
        ("cpu", clocked("cpu", 2000, 1000), []),  # too few
    ],
)
def test_clock_changes(device: str, readings: list[Reading], expected: list[str]) -> None:
    found = list_clock_changes(readings, device)
    assert len(found) == len(expected)
    for words, start in zip(found, expected, strict=True):
        assert words.startswith(f"the clock of {start} in the first third to ")


def test_throttling() -> None:
    readings = [
        Reading(throttling=frozenset(), events={"oc3": 813, "oc1": 2}),
        Reading(throttling=frozenset({"gpu-throttle-alert"}), events={"oc3": 815, "oc1": 2}),
        Reading(throttling=frozenset(), events={"oc3": 820, "oc1": 2}),
    ]
    assert list_throttling(readings) == ["gpu-throttle-alert", "oc3: 7 times"]
    assert list_throttling(readings[:1]) == []
    assert list_throttling([]) == []


def test_a_counter_that_appears_late() -> None:
    assert list_throttling([Reading(), Reading(events={"oc3": 9}), Reading(events={"oc3": 10})]) == [
        "oc3: 1 times"
    ]


def test_courses() -> None:
    readings = clocked("gpu", 3, 1, None, 7, 5)
    assert summarize(readings, lambda reading: reading.clocks_mhz) == {
        "gpu": Course(start=3, end=5, low=1, high=7)
    }
    assert summarize([], lambda reading: reading.clocks_mhz) == {}


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(2.5, 4.5, [2, 3, 4, 5]), (3, 4, [3, 4]), (-5, 0.5, [0, 1]), (7.5, 99, [7, 8, 9]), (20, 30, [9])],
)
def test_within(start: float, end: float, expected: list[int]) -> None:
    trace = Trace(np.arange(10.0), clocked("gpu", *range(10)), 1.0)
    assert [reading.clocks_mhz["gpu"] for reading in select_readings(trace, start, end)] == expected


# --- other processes


def test_busy_ticks() -> None:
    stat = "cpu  100 20 300 9000 50 6 7 80 5 3\ncpu0 1 2 3 4 5 6 7 8 9 10\n"
    assert parse_busy_ticks(stat) == 100 + 20 + 300 + 6 + 7 + 80
    assert parse_busy_ticks("") is None
    assert parse_busy_ticks("intr 1 2 3") is None


def test_busy_cores() -> None:
    before = CpuTime(10.0, 1000.0, 5.0)
    assert busy_cores(before, CpuTime(14.0, 1010.0, 9.0)) == pytest.approx(2.5)
    assert busy_cores(before, before) is None
    assert busy_cores(None, before) is None


def test_other_cores() -> None:
    before, after = CpuTime(10.0, 1000.0, 5.0), CpuTime(14.0, 1010.0, 9.0)
    assert other_cores(before, after) == pytest.approx((10 - 4) / 4)
    assert other_cores(before, CpuTime(14.0, 1003.0, 9.0)) == 0.0  # ticks are coarse
    assert other_cores(None, after) is None
    assert other_cores(before, before) is None


def test_a_real_other_process() -> None:
    """It is known how much CPU time the other process took; everybody else comes on top."""
    if cpu_time() is None:
        pytest.skip("no /proc/stat")
    before = cpu_time()
    began = time.monotonic()
    burn = "import time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    took = time.monotonic() - began
    found = other_cores(before, cpu_time())
    assert found is not None
    assert found >= 0.8 * 0.4 / took
    assert found <= (os.cpu_count() or 1) + 1


def test_a_system_without_proc(tmp_path: Path) -> None:
    assert cpu_time(tmp_path) is None


def test_neighbours_on_the_cpu() -> None:
    assert list_neighbours("cpu", (), 0.5, 2) == ["other processes kept 0.5 of 2 cores busy"]
    assert list_neighbours("cpu", (), 0.19, 2) == []
    assert list_neighbours("cpu", (), None, 2) == []
    assert list_neighbours("cpu", ("process 7",), 0.0, 2) == []


def test_neighbours_on_the_gpu() -> None:
    assert list_neighbours("cuda:0", ("process 7 (train)",), 1.9, 2) == ["shared the GPU with process 7 (train)"]
    assert list_neighbours("cuda:0", (), 1.9, 2) == []
