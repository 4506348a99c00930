"""The GPU's source against a module that answers as nvidia-ml-py does, and against a real GPU."""

from __future__ import annotations

import os
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from dskd_export.telemetry.nvml import NvmlSource
from dskd_export.telemetry.reading import SourceError


class NVMLError(Exception):
    pass


class FakeNvml:
    """One GPU at address 0000:1b:00.0. `lacks` names the questions it does not answer."""

    NVMLError = NVMLError
    NVML_SUCCESS = 0
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, NVML_FI_DEV_POWER_INSTANT = 1, 2, 0, 186

    def __init__(self, *lacks: str) -> None:
        self.lacks = set(lacks)
        self.started = 0
        self.energy_mj = 5_000_000
        self.bits = 0x1  # idle: no reason to worry
        self.asked: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvmlDevice") and name in object.__getattribute__(self, "lacks"):
            self.asked.append(name)

            def refuse(*_: object) -> None:
                raise NVMLError("Not Supported")

            return refuse
        return object.__getattribute__(self, name)

    def nvmlInit(self) -> None:
        if "nvmlInit" in self.lacks:
            raise NVMLError("Driver Not Loaded")
        self.started += 1

    def nvmlShutdown(self) -> None:
        self.started -= 1

    def nvmlDeviceGetHandleByPciBusId(self, bus_id: str) -> str:
        if bus_id != "0000:1b:00.0":
            raise NVMLError("Not Found")
        return "handle"

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"handle {index}"

    def nvmlDeviceGetFieldValues(self, device: str, fields: list[int]) -> list[SimpleNamespace]:
        assert fields == [186]
        return [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=312_500))]

    def nvmlDeviceGetUtilizationRates(self, device: str) -> SimpleNamespace:
        return SimpleNamespace(gpu=87, memory=40)

    def nvmlDeviceGetPowerUsage(self, device: str) -> int:
        return 300_000

    def nvmlDeviceGetTotalEnergyConsumption(self, device: str) -> int:
        self.energy_mj += 250
        return self.energy_mj

    def nvmlDeviceGetClockInfo(self, device: str, kind: int) -> int:
        return {1: 1980, 2: 3201}[kind]

    def nvmlDeviceGetTemperature(self, device: str, sensor: int) -> int:
        return 61

    def nvmlDeviceGetCurrentClocksEventReasons(self, device: str) -> int:
        return self.bits

    def nvmlDeviceGetMemoryInfo(self, device: str) -> SimpleNamespace:
        return SimpleNamespace(used=2_500_000_000)

    def nvmlDeviceGetComputeRunningProcesses(self, device: str) -> list[SimpleNamespace]:
        own = SimpleNamespace(pid=os.getpid(), usedGpuMemory=1)
        known = SimpleNamespace(pid=os.getppid(), usedGpuMemory=1_500_000_000)
        return [own, known, SimpleNamespace(pid=2**30, usedGpuMemory=None)]


ALL = [name for name in vars(FakeNvml) if name.startswith("nvmlDeviceGet") and "Handle" not in name]
BUS = "0000:1b:00.0"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    def make(*lacks: str) -> FakeNvml:
        fake = FakeNvml(*lacks)
        monkeypatch.setitem(sys.modules, "pynvml", fake)  # type: ignore[arg-type]
        return fake

    return make


def test_everything(install) -> None:  # type: ignore[no-untyped-def]
    fake = install()
    source = NvmlSource(bus_id=BUS)
    assert fake.started == 1
    reading = source.read()
    assert reading.power_w == {"GPU": 312.5}
    assert reading.energy_j == {"GPU": pytest.approx(5000.5)}
    assert reading.clocks_mhz == {"gpu": 1980, "memory": 3201}
    assert reading.temperatures_c == {"gpu": 61}
    assert reading.throttling == frozenset()
    assert source.total is not None
    assert (source.total.rails, source.total.scope) == (("GPU",), "the GPU board")
    assert source.name == "NVML (instantaneous power)"
    assert source.memory_used_mb() == 2500
    assert source.load() == 0.87
    source.close()
    assert fake.started == 0


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (0x1 | 0x2 | 0x10 | 0x100, set()),  # idle, set clocks, sync boost, display: nothing slows it down
        (0x4, {"power cap of the GPU"}),
        (0x8 | 0x40, {"hardware slowdown of the GPU", "thermal slowdown of the GPU by its hardware"}),
        (0x20 | 0x80, {"thermal slowdown of the GPU by the driver", "power brake of the GPU"}),
    ],
)
def test_throttling(install, bits: int, expected: set[str]) -> None:  # type: ignore[no-untyped-def]
    fake = install()
    source = NvmlSource(bus_id=BUS)
    fake.bits = bits
    assert source.read().throttling == expected
    source.close()


def test_the_name_of_older_bindings(install) -> None:  # type: ignore[no-untyped-def]
    fake = install("nvmlDeviceGetCurrentClocksEventReasons")
    fake.nvmlDeviceGetCurrentClocksThrottleReasons = lambda device: 0x4  # type: ignore[attr-defined]
    source = NvmlSource(bus_id=BUS)
    assert source.read().throttling == {"power cap of the GPU"}
    source.close()


def test_a_gpu_without_instantaneous_power(install) -> None:  # type: ignore[no-untyped-def]
    install("nvmlDeviceGetFieldValues")
    source = NvmlSource(bus_id=BUS)
    assert source.read().power_w == {"GPU": 300.0}
    assert source.name == "NVML (power averaged by the driver)"
    source.close()


def test_a_field_that_is_refused_by_its_own_code(install, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    refused = [SimpleNamespace(nvmlReturn=3, value=SimpleNamespace(uiVal=0))]
    monkeypatch.setattr(FakeNvml, "nvmlDeviceGetFieldValues", lambda *_: refused)
    install()
    source = NvmlSource(bus_id=BUS)
    assert source.read().power_w == {"GPU": 300.0}  # not 0 W
    source.close()


def test_a_gpu_without_a_counter(install) -> None:  # type: ignore[no-untyped-def]
    install("nvmlDeviceGetTotalEnergyConsumption")
    source = NvmlSource(bus_id=BUS)
    assert source.read().energy_j == {}
    assert source.total is not None
    source.close()


def test_a_jetson_whose_nvml_refuses_every_value(install) -> None:  # type: ignore[no-untyped-def]
    fake = install(*ALL)
    source = NvmlSource(bus_id=BUS)
    assert source.total is None
    assert "neither power nor energy" in source.reason
    with pytest.raises(SourceError, match="no longer"):
        source.read()
    assert source.others() == []
    assert source.memory_used_mb() is None
    source.close()
    assert fake.started == 0


def test_a_gpu_that_falls_off_the_bus(install) -> None:  # type: ignore[no-untyped-def]
    fake = install()
    source = NvmlSource(bus_id=BUS)
    assert source.read().power_w
    fake.lacks.update(ALL)
    with pytest.raises(SourceError, match="no longer"):
        source.read()
    source.close()


def test_other_processes(install) -> None:  # type: ignore[no-untyped-def]
    install()
    source = NvmlSource(bus_id=BUS)
    known, unknown = source.others()
    assert known.startswith(f"process {os.getppid()} (")
    assert known.endswith(") with 1500 MB of the GPU's memory")
    assert unknown == f"process {2**30}"
    source.close()


def test_a_device_that_nvml_does_not_know(install) -> None:  # type: ignore[no-untyped-def]
    fake = install()
    with pytest.raises(SourceError, match=r"cuda:0: Not Found"):
        NvmlSource(bus_id="0000:ff:00.0")
    assert fake.started == 0


def test_no_driver(install) -> None:  # type: ignore[no-untyped-def]
    install("nvmlInit")
    with pytest.raises(SourceError, match="Driver Not Loaded"):
        NvmlSource(bus_id=BUS)


def test_the_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(SourceError, match=r"pynvml is not installed.*dskd-compress\[nvml\]"):
        NvmlSource(bus_id=BUS)


def test_the_fake_has_only_what_the_binding_has() -> None:
    real = pytest.importorskip("pynvml")
    assert [name for name in vars(FakeNvml) if name.startswith(("nvml", "NVML")) and not hasattr(real, name)] == []
    for bit, name in [
        (0x04, "SwPowerCap"),
        (0x08, "HwSlowdown"),
        (0x20, "SwThermalSlowdown"),
        (0x40, "HwThermalSlowdown"),
        (0x80, "HwPowerBrakeSlowdown"),
    ]:
        assert getattr(real, f"nvmlClocksEventReason{name}") == bit


@pytest.mark.gpu
def test_a_real_gpu() -> None:
    source = NvmlSource(0)
    first = source.read()
    time.sleep(0.5)
    second = source.read()
    assert source.total is not None
    assert second.power_w["GPU"] > 1
    assert second.clocks_mhz["gpu"] > 0
    assert 0 < second.temperatures_c["gpu"] < 120
    if first.energy_j:
        assert 0 < second.energy_j["GPU"] - first.energy_j["GPU"] < 2000
    source.close()
