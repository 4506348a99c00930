"""The whole: a planted board or a fake source, watched while something runs."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from telemetry_support import AGX_ORIN, NANO, ORIN_NANO, RAPL, SERVER, THOR, Tree, cooling, over_current, plant

from dskd_export.documents.benchmark import EnergyFacts, TelemetryFacts
from dskd_export.telemetry import monitor as module
from dskd_export.telemetry.monitor import Monitor, open_source
from dskd_export.telemetry.reading import Reading, SourceError, Total

INTERVAL_S = 0.01


class FakeSource:
    name = "a fake"
    reason = ""
    total = Total(("a", "b"), "the fake")

    def __init__(self, read: Callable[[], Reading]) -> None:
        self.read = read
        self.closed = False

    def others(self) -> list[str]:
        return ["process 7 (python)"]

    def close(self) -> None:
        self.closed = True


def observe(
    source: FakeSource | None = None,
    seconds: float = 0.5,
    device: str = "cpu",
    idle: bool = False,
    during: Callable[[], None] = lambda: None,
    **places: Path,
) -> tuple[EnergyFacts, TelemetryFacts]:
    with Monitor(device, source=source, interval_s=INTERVAL_S, **places) as monitor:
        if idle:
            monitor.measure_idle(0.3)
        with monitor.watch() as watch:
            start = time.perf_counter()
            time.sleep(seconds / 2)
            during()
            time.sleep(seconds / 2)
            end = time.perf_counter()
        return watch.facts(start, end, 100)


@pytest.mark.parametrize(
    ("tree", "rails", "watts", "mode"),
    [
        (ORIN_NANO, ["VDD_IN"], 9.250304, "MAXN_SUPER (mode 2)"),
        (AGX_ORIN, ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"], 9.00224, "MAXN (mode 0)"),
        (THOR, ["VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"], 28.11712, "120W (mode 1)"),
    ],
    ids=["Orin Nano", "AGX Orin", "Thor"],
)
def test_a_jetson(tmp_path: Path, tree: Tree, rails: list[str], watts: float, mode: str) -> None:
    energy, telemetry = observe(device="cuda:0", root=plant(tmp_path, tree), idle=True)
    assert energy.reason == ""
    assert (energy.rails, energy.scope, energy.method, energy.source) == (rails, "the module", "samples", "sysfs")
    assert energy.mean_w == pytest.approx(watts)
    assert energy.seconds is not None
    assert energy.energy_j == pytest.approx(watts * energy.seconds)
    assert energy.per_image_mj is not None
    assert energy.per_image_mj.value == pytest.approx(1e3 * watts * energy.seconds / 100)
    assert energy.idle_w == pytest.approx(watts)
    assert energy.above_idle_per_image_mj is not None
    assert energy.above_idle_per_image_mj.value == pytest.approx(0, abs=1e-6)
    assert telemetry.power_mode == mode
    assert telemetry.rate_hz >= 10
    assert telemetry.throttled == []
    assert telemetry.unstable == []
    assert "tj" in telemetry.temperatures_c
    assert telemetry.clocks_mhz["gpu"].start == telemetry.clocks_mhz["gpu"].end > 500


def test_a_board_that_throttles(tmp_path: Path) -> None:
    """Planted halfway: an alert, more over-current events, half the clock, more heat."""
    plant(tmp_path, THOR)

    def throttle() -> None:
        alert = {"cpufreq-cpu0": 0, "gpu-throttle-alert": 1, "devfreq-gpu-gpc-0": 0}
        slow = {"sys/class/devfreq/gpu-gpc-0/cur_freq": "787500000"}
        plant(tmp_path, cooling(alert), over_current(0, 8, 820), slow)
        plant(tmp_path, {"sys/class/thermal/thermal_zone3/temp": "109000"})

    _, telemetry = observe(device="cuda:0", seconds=1.0, during=throttle, root=tmp_path)
    assert telemetry.throttled == ["gpu-throttle-alert", "instantaneous over-current alarm (OC3): 7 times"]
    assert telemetry.unstable == [
        "clocks were held down: gpu-throttle-alert",
        "clocks were held down: instantaneous over-current alarm (OC3): 7 times",
        "the clock of the GPU fell from 1575 MHz in the first third to 788 MHz in the last third",
    ]
    assert telemetry.temperatures_c["tj"].start == 55.1
    assert telemetry.temperatures_c["tj"].high == 109.0


def test_a_sine_of_power_is_integrated() -> None:
    def read() -> Reading:
        now = time.perf_counter()
        return Reading(power_w={"a": 20 + 8 * math.sin(2 * math.pi * now), "b": 5.0})

    with Monitor("cpu", source=FakeSource(read), interval_s=INTERVAL_S) as monitor:
        with monitor.watch() as watch:
            start = time.perf_counter()
            time.sleep(1.3)
            end = time.perf_counter()
        energy, _ = watch.facts(start, end, 10)
    w = 2 * math.pi
    exact = 25 * (end - start) + 8 / w * (math.cos(w * start) - math.cos(w * end))
    assert energy.energy_j == pytest.approx(exact, rel=0.01)
    assert energy.rails_w["a"].high > 26


def test_a_counter_is_preferred_and_checked() -> None:
    def read() -> Reading:
        now = time.perf_counter()
        return Reading(power_w={"a": 10.0, "b": 5.0}, energy_j={"a": 10 * now, "b": 9 * now})

    energy, _ = observe(FakeSource(read))
    assert energy.method == "counter"
    assert energy.mean_w == pytest.approx(19.0, rel=0.02)
    assert energy.note.startswith("the counter says 9.")
    assert ", the samples of the power 7." in energy.note


def test_a_counter_that_fails_leaves_the_samples() -> None:
    energy, _ = observe(FakeSource(lambda: Reading(power_w={"a": 10.0, "b": 5.0}, energy_j={"a": 1.0, "b": 1.0})))
    assert energy.method == "samples"
    assert energy.mean_w == pytest.approx(15.0)
    assert energy.note == "the energy counter stood still during the measurement"


def test_the_power_at_rest_is_taken_off() -> None:
    watts = [2.0]
    source = FakeSource(lambda: Reading(power_w={"a": watts[0], "b": 0.0}))
    with Monitor("cpu", source=source, interval_s=INTERVAL_S) as monitor:
        monitor.measure_idle(0.3)
        watts[0] = 12.0
        with monitor.watch() as watch:
            start = time.perf_counter()
            time.sleep(0.5)
            end = time.perf_counter()
        energy, _ = watch.facts(start, end, 10)
    assert energy.idle_w == pytest.approx(2.0)
    assert energy.above_idle_per_image_mj is not None
    assert energy.above_idle_per_image_mj.value == pytest.approx(1e3 * 10 * (end - start) / 10, rel=0.01)


def test_a_rest_that_cannot_be_measured() -> None:
    polls = iter(range(10**6))

    def read() -> Reading:
        if next(polls) < 5:
            raise SourceError("not yet")
        return Reading(power_w={"a": 1.0, "b": 1.0})

    energy, _ = observe(FakeSource(read), idle=True)
    assert energy.per_image_mj is not None
    assert (energy.idle_w, energy.above_idle_per_image_mj) == (None, None)
    assert energy.idle_reason == "the idle power: no sample has the power of all rails (a fake: not yet)"


def test_a_source_that_dies_midway() -> None:
    polls = iter(range(10**6))

    def read() -> Reading:
        if next(polls) > 15:
            raise SourceError("the bus is stuck")
        return Reading(power_w={"a": 1.0, "b": 1.0})

    energy, telemetry = observe(FakeSource(read), seconds=0.8)
    assert energy.per_image_mj is None
    assert "% of the measured time has no samples" in energy.reason
    assert energy.reason.endswith("(a fake: the bus is stuck)")
    assert telemetry.failure == "a fake: the bus is stuck"


def test_a_gap_is_flagged() -> None:
    """A source that does not answer for a while."""
    began = time.perf_counter()
    paused = threading.Event()

    def read() -> Reading:
        if time.perf_counter() - began > 0.6 and not paused.is_set():
            paused.set()
            time.sleep(0.2)
        return Reading(power_w={"a": 3.0, "b": 1.0})

    energy, _ = observe(FakeSource(read), seconds=1.8)
    assert energy.gaps is not None
    assert energy.gaps >= 1
    assert energy.gap_share is not None
    assert energy.gap_share >= 0.1
    assert energy.mean_w == pytest.approx(4.0)


def test_a_source_that_blocks_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dskd_export.telemetry.sampler._END_S", 0.1)
    free = threading.Event()

    def read() -> Reading:
        free.wait(30)
        return Reading()

    source = FakeSource(read)
    with Monitor("cpu", source=source, interval_s=INTERVAL_S) as monitor:
        for _ in range(2):  # the second row does not wait for what the first one could not get
            with monitor.watch() as watch:
                start = time.perf_counter()
                time.sleep(0.05)
                end = time.perf_counter()
            energy, telemetry = watch.facts(start, end, 1)
            assert "a fake has not answered for" in energy.reason
            assert telemetry.failure.startswith("a fake has not answered for")
            assert telemetry.samples == 0
        assert len([thread for thread in threading.enumerate() if thread.name == "telemetry"]) == 1
    assert not source.closed
    free.set()


def test_a_rail_that_is_missing_from_all_samples() -> None:
    energy, _ = observe(FakeSource(lambda: Reading(power_w={"a": 1.0})))
    assert energy.per_image_mj is None
    assert energy.reason == "no sample has the power of all rails"


def test_a_server_has_no_energy_and_waits_for_none(tmp_path: Path) -> None:
    began = time.perf_counter()
    energy, telemetry = observe(root=plant(tmp_path, SERVER), seconds=0.2, idle=True)
    assert time.perf_counter() - began < 2
    assert energy.per_image_mj is None
    assert energy.mean_w is None
    assert energy.reason == "the system shows no energy counter of the CPU (powercap, RAPL)"
    assert telemetry.clocks_mhz["cpu"].start == 3400
    assert (telemetry.power_mode, telemetry.power_mode_reason) == (None, "not a Jetson")
    assert telemetry.other_cpu_cores is None  # the planted tree has no /proc/stat


def test_rapl_by_its_counter(tmp_path: Path) -> None:
    plant(tmp_path, SERVER, RAPL)
    counter = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    ending = threading.Event()
    began = time.perf_counter()

    def count() -> None:
        with counter.open("r+b", buffering=0) as file:
            while not ending.wait(0.002):
                file.seek(0)
                file.write(b"%020d\n" % int(261e6 + 42e6 * (time.perf_counter() - began)))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        energy, _ = observe(root=tmp_path, seconds=1.0)
    finally:
        ending.set()
        thread.join()
    assert (energy.method, energy.scope) == ("counter", "the CPU package")
    assert energy.mean_w == pytest.approx(42.0, rel=0.05)


def test_the_source_is_closed() -> None:
    source = FakeSource(lambda: Reading(power_w={"a": 1.0, "b": 1.0}))
    observe(source, seconds=0.2)
    assert source.closed


# --- which source


def test_a_jetson_by_tegrastats_where_sysfs_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tool(FakeSource):
        name = "tegrastats"

        def __init__(self) -> None:
            super().__init__(lambda: Reading(power_w={"a": 4.0, "b": 2.0}, clocks_mhz={"gpu": 900.0}))

    monkeypatch.setattr(module, "TegrastatsSource", Tool)
    without_rails = {name: text for name, text in ORIN_NANO.items() if "ina3221" not in name}
    source = open_source("cpu", plant(tmp_path, without_rails))
    assert source.name == "sysfs and tegrastats"
    reading = source.read()
    assert reading.power_w == {"a": 4.0, "b": 2.0}
    assert reading.clocks_mhz == {"cpu": 1728.0, "gpu": 900.0}
    assert "instantaneous over-current alarm (OC3)" in reading.events
    source.close()


def test_a_jetson_with_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    model = {name: text for name, text in NANO.items() if "ina3221" not in name}
    source = open_source("cuda:0", plant(tmp_path, model))
    assert source.total is None
    assert "power rails" in source.reason
    assert "tegrastats" in source.reason
    source.close()


def test_a_gpu_without_the_binding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    source = open_source("cuda:0", plant(tmp_path, SERVER))
    assert source.total is None
    assert source.reason.startswith(
        "sysfs does not show the power of this GPU; NVML is unavailable: pynvml is not"
    )
    assert "dskd-compress[nvml]" in source.reason
    source.close()


@pytest.mark.gpu
def test_a_real_gpu() -> None:
    energy, telemetry = observe(device="cuda:0", seconds=2.0, idle=True)
    assert energy.reason == ""
    assert energy.per_image_mj is not None
    assert energy.mean_w is not None
    assert 5 < energy.mean_w < 1500
    assert telemetry.rate_hz >= 10
