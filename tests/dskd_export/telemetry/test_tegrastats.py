from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from telemetry_support import LINES

from dskd_export.telemetry.reading import SourceError
from dskd_export.telemetry.sampler import Sampler
from dskd_export.telemetry.tegrastats import TegrastatsSource, parse_line

NANO = LINES["Orin Nano, 36.4"]


@pytest.mark.parametrize(
    ("board", "power_mw", "gpu", "emc_mhz"),
    [
        ("Orin Nano, 36.4", {"VDD_IN": 16321, "VDD_CPU_GPU_CV": 7104, "VDD_SOC": 3120}, (0.99, 612), 2133),
        ("Orin NX, 36.4, no root", {"VDD_IN": 5348, "VDD_CPU_GPU_CV": 1067, "VDD_SOC": 1384}, (0.0, None), None),
        ("AGX Orin, 36.4", {"VDD_GPU_SOC": 2412, "VDD_CPU_CV": 1607, "VIN_SYS_5V0": 4607}, (0.0, None), 2133),
        ("AGX Orin, 39.2", {"VDD_GPU_SOC": 4385, "VDD_CPU_CV": 1196, "VIN_SYS_5V0": 5552}, (0.32, None), None),
        (
            "Thor, 38.2",
            {"VDD_GPU": -392, "VDD_CPU_SOC_MSS": 3924, "VIN_SYS_5V0": 5064, "VIN": 15004},
            (None, None),
            None,
        ),
        ("Thor, 39.2", {"VDD_GPU": 4925, "VDD_CPU_SOC_MSS": 7953, "VIN_SYS_5V0": 6667}, (None, 315), 3200),
        ("Nano, 32.7", {"POM_5V_IN": 2545, "POM_5V_GPU": 0, "POM_5V_CPU": 549}, (0.5, 921), None),
    ],
)
def test_lines(
    board: str, power_mw: dict[str, float], gpu: tuple[float | None, float | None], emc_mhz: float | None
) -> None:
    line = parse_line(LINES[board])
    assert line is not None
    assert line.power_mw == power_mw
    assert line.gpu_mhz == gpu[1]
    assert line.emc_mhz == emc_mhz


def test_the_rest_of_a_line() -> None:
    line = parse_line(NANO)
    assert line is not None
    assert line.cpu_mhz == [1497, 729, 729, 729], "without the cores that are off"
    assert line.temperatures_c == {"cpu": 57.125, "soc2": 55.093, "soc0": 56.625, "gpu": 58.625, "tj": 58.312}
    newest = parse_line(LINES["Thor, 39.2"])
    assert newest is not None
    assert newest.temperatures_c == {"cpu": 34.312, "tj": 35.906, "gpu": 35.906}


@pytest.mark.parametrize("text", ["", "tegrastats: permission denied", "VDD_IN 5mW/5mW"])
def test_what_is_no_line(text: str) -> None:
    assert parse_line(text) is None


@pytest.fixture
def tool(tmp_path: Path) -> Callable[[str], Path]:
    """A real program under the tool's name. It notes its process and its children's."""

    def make(script: str) -> Path:
        path = tmp_path / "tegrastats"
        path.write_text(f'#!/bin/sh\necho $$ >> {tmp_path}/pids\nPIDS={tmp_path}/pids\nLINE="{NANO}"\n{script}\n')
        path.chmod(0o755)
        return path

    return make


def none_left(tmp_path: Path) -> bool:
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert pids
    until = time.monotonic() + 2  # a killed grandchild is reaped by init
    while time.monotonic() < until:
        if not any(Path(f"/proc/{pid}").exists() and "Z" not in _state(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


STEADY = '[ "$1" = --interval ] || exit 9\nwhile :; do echo "$LINE"; sleep 0.02; done'


def test_a_running_tool(tool: Callable[[str], Path], tmp_path: Path) -> None:
    source = TegrastatsSource(tool(STEADY), interval_ms=20)
    try:
        with Sampler(source, interval_s=0.02) as sampler:
            time.sleep(1.0)
        trace = sampler.trace()
        assert source.total is not None
        assert source.total.rails == ("VDD_IN",)
    finally:
        source.close()
    assert trace.failure == ""
    assert len(trace.readings) >= 10
    assert trace.readings[0].power_w["VDD_IN"] == 16.321
    assert trace.readings[0].clocks_mhz == {"cpu": 1497, "gpu": 612, "emc": 2133}
    assert none_left(tmp_path)


def test_a_slow_reader_gets_the_newest_line(tool: Callable[[str], Path]) -> None:
    counting = 'n=1000\nwhile :; do echo "RAM 1/2MB VDD_IN ${n}mW/0mW"; n=$((n+1)); sleep 0.01; done'
    source = TegrastatsSource(tool(counting), interval_ms=10)
    first = source.read().power_w["VDD_IN"]
    time.sleep(0.5)
    second = source.read().power_w["VDD_IN"]
    third = source.read().power_w["VDD_IN"]
    source.close()
    assert second - first > 0.005
    assert third > second


def test_a_tool_that_ends_midway(tool: Callable[[str], Path], tmp_path: Path) -> None:
    dying = 'for i in 1 2 3 4 5; do echo "$LINE"; sleep 0.05; done; echo "no more sensors" >&2; exit 3'
    source = TegrastatsSource(tool(dying), interval_ms=50)
    with Sampler(source, interval_s=0.05) as sampler:
        time.sleep(1.0)
    source.close()
    trace = sampler.trace()
    assert trace.readings
    assert trace.failure == "tegrastats: tegrastats ended with 3: no more sensors"
    assert none_left(tmp_path)


def test_a_tool_that_hangs(tool: Callable[[str], Path], tmp_path: Path) -> None:
    source = TegrastatsSource(tool('echo "$LINE"; sleep 60'), interval_ms=10)
    with pytest.raises(SourceError, match="no line for 1 s"):
        source.read()
    source.close()
    assert none_left(tmp_path)


def test_a_tool_that_refuses(tool: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="tegrastats ended with 1: permission denied"):
        TegrastatsSource(tool("echo permission denied >&2; exit 1"))
    assert none_left(tmp_path)


def test_a_tool_that_must_be_killed_with_its_children(tool: Callable[[str], Path], tmp_path: Path) -> None:
    deaf = 'trap "" TERM\n(trap "" TERM; sh -c "echo \\$\\$ >> $PIDS; exec sleep 60") &\n' + STEADY
    source = TegrastatsSource(tool(deaf), interval_ms=20)
    began = time.monotonic()
    source.close()
    source.close()  # twice is once
    assert time.monotonic() - began < 6
    assert none_left(tmp_path)


def test_without_the_tool() -> None:
    with pytest.raises(SourceError, match="tegrastats-that-is-not-there"):
        TegrastatsSource("tegrastats-that-is-not-there")
