"""A GPU through NVML, by nvidia-ml-py: power, energy, clocks, temperature, throttling, processes.

https://docs.nvidia.com/deploy/nvml-api/: `nvmlDeviceGetPowerUsage` is an average over 1 s on Ampere (but
GA100) and newer, the field NVML_FI_DEV_POWER_INSTANT is not; `nvmlDeviceGetTotalEnergyConsumption` counts
mJ since the driver was loaded, on Volta and newer. On a Jetson NVML may start and then refuse every value:
its power is in sysfs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dskd_export.errors import MissingExtra, require
from dskd_export.telemetry.cuda import cuda_bus_id
from dskd_export.telemetry.reading import Reading, SourceError, Total
from dskd_export.telemetry.sysfs import read_text

RAIL = "GPU"

# nvmlClocksEventReasons of nvml.h, those that hold a busy GPU back. Older bindings name them otherwise.
_SLOWING = {
    0x04: "power cap of the GPU",
    0x08: "hardware slowdown of the GPU",
    0x20: "thermal slowdown of the GPU by the driver",
    0x40: "thermal slowdown of the GPU by its hardware",
    0x80: "power brake of the GPU",
}


class NvmlSource:
    """One GPU.

    Args:
        index: of the device as CUDA counts, 0 for `cuda:0`.
        bus_id: its PCI address; None asks the CUDA driver.

    Raises:
        SourceError: nvidia-ml-py or NVML is not installed, or NVML does not list the device.
    """

    def __init__(self, index: int = 0, bus_id: str | None = None) -> None:
        try:
            self._nvml: Any = require("pynvml", "nvml")
        except MissingExtra as error:
            raise SourceError(f"NVML is unavailable: {error}") from error
        self._error: type[Exception] = self._nvml.NVMLError
        try:
            self._nvml.nvmlInit()
        except self._error as error:
            raise SourceError(f"NVML cannot start: {error}") from error
        try:
            self._device = self._handle(bus_id or cuda_bus_id(index), index)
            self._power = self._choose_power()
            self._counts_energy = self._energy_j() is not None
        except BaseException:
            self._nvml.nvmlShutdown()
            raise
        has_power = self._power is not None or self._counts_energy
        self.name = "NVML" if self._power is None else f"NVML ({self._power[0]})"
        self.total = Total((RAIL,), "the GPU board") if has_power else None
        self.reason = "" if has_power else "NVML reports neither power nor energy of this GPU"

    def read(self) -> Reading:
        """Read all values of the GPU.

        Raises:
            SourceError: the GPU no longer answers.
        """
        clocks = {
            "gpu": self._query(lambda: self._nvml.nvmlDeviceGetClockInfo(self._device, self._nvml.NVML_CLOCK_SM)),
            "memory": self._query(
                lambda: self._nvml.nvmlDeviceGetClockInfo(self._device, self._nvml.NVML_CLOCK_MEM)
            ),
        }
        sensor = self._nvml.NVML_TEMPERATURE_GPU
        temperature = self._query(lambda: self._nvml.nvmlDeviceGetTemperature(self._device, sensor))
        power = None if self._power is None else self._query(self._power[1])
        energy = self._energy_j() if self._counts_energy else None
        reading = Reading(
            power_w={} if power is None else {RAIL: power / 1e3},
            energy_j={} if energy is None else {RAIL: energy},
            clocks_mhz={name: float(clock) for name, clock in clocks.items() if clock is not None},
            temperatures_c={} if temperature is None else {"gpu": float(temperature)},
            throttling=self._read_throttling(),
        )
        if reading == Reading():
            raise SourceError("NVML no longer reports any value of this GPU")
        return reading

    def others(self) -> list[str]:
        """List other processes that compute on this GPU, with their memory if known."""
        found = self._query(lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(self._device))
        return [_process(entry) for entry in found or [] if entry.pid != os.getpid()]

    def load(self) -> float | None:
        """Read the share of the last sample period in which a kernel ran, in [0, 1]; None: unknown."""
        found = self._query(lambda: self._nvml.nvmlDeviceGetUtilizationRates(self._device).gpu)
        return None if found is None else found / 100

    def memory_used_mb(self) -> float | None:
        """Read the GPU memory that all processes use, 1 MB = 10^6 bytes."""
        found = self._query(lambda: self._nvml.nvmlDeviceGetMemoryInfo(self._device).used)
        return None if found is None else found / 1e6

    def close(self) -> None:
        """Shut NVML down."""
        self._nvml.nvmlShutdown()

    def _handle(self, bus_id: str | None, index: int) -> Any:
        try:
            if bus_id is not None:
                return self._nvml.nvmlDeviceGetHandleByPciBusId(bus_id)
            return self._nvml.nvmlDeviceGetHandleByIndex(index)
        except self._error as error:
            raise SourceError(f"NVML does not list the device cuda:{index}: {error}") from error

    def _choose_power(self) -> tuple[str, Callable[[], float]] | None:
        """Choose how to read the power in mW: instantaneous, else the driver's own average."""
        for name, call in (("instantaneous power", self._instant), ("power averaged by the driver", self._usage)):
            if self._query(call) is not None:
                return name, call
        return None

    def _instant(self) -> float:
        field = self._nvml.NVML_FI_DEV_POWER_INSTANT
        (value,) = self._nvml.nvmlDeviceGetFieldValues(self._device, [field])
        if value.nvmlReturn != self._nvml.NVML_SUCCESS:
            raise self._error(value.nvmlReturn)
        return float(value.value.uiVal)

    def _usage(self) -> float:
        return float(self._nvml.nvmlDeviceGetPowerUsage(self._device))

    def _energy_j(self) -> float | None:
        energy = self._query(lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._device))
        return None if energy is None else energy / 1e3

    def _read_throttling(self) -> frozenset[str]:
        # Renamed with driver 535; a binding may have one of the names only.
        names = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
        for ask in (getattr(self._nvml, name, None) for name in names):
            bits = None if ask is None else self._query(lambda ask=ask: ask(self._device))  # type: ignore[misc]
            if bits is not None:
                return frozenset(words for bit, words in _SLOWING.items() if bits & bit)
        return frozenset()

    def _query(self, question: Callable[[], Any]) -> Any:
        """Return a value, or None if this GPU, driver or binding lacks it."""
        try:
            return question()
        except (self._error, AttributeError):
            return None


def _process(entry: Any) -> str:
    name = read_text(Path(f"/proc/{entry.pid}/comm"))
    words = f"process {entry.pid}" + (f" ({name})" if name else "")
    memory = getattr(entry, "usedGpuMemory", None)
    return words if memory is None else f"{words} with {memory / 1e6:.0f} MB of the GPU's memory"
