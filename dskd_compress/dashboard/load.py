"""Load of this machine: the CPU, and a GPU by NVML."""

from __future__ import annotations

from contextlib import ExitStack

from dskd_export.telemetry.host import usable_cores
from dskd_export.telemetry.nvml import NvmlSource
from dskd_export.telemetry.reading import SourceError
from dskd_export.telemetry.usage import busy_cores, cpu_time


class Load:
    """Measures the load of the CPU and of the GPU that trains.

    Args:
        device: of the training, `cpu` or `cuda:0`.
    """

    def __init__(self, device: str) -> None:
        self._stack = ExitStack()
        self._gpu: NvmlSource | None = None
        self._why_no_gpu = ""
        self._before = cpu_time()
        if device.startswith("cuda"):
            try:
                self._gpu = NvmlSource(int(device.partition(":")[2] or 0))
                self._stack.callback(self._gpu.close)
            except SourceError as error:
                self._why_no_gpu = str(error)

    def describe(self) -> list[str]:
        """Describe the load since the last call, one line per device, or the reason why it is unknown."""
        now = cpu_time()
        busy = busy_cores(self._before, now)
        self._before = now
        found = [
            "CPU  unknown on this system" if busy is None else f"CPU  {busy:.1f} of {usable_cores()} cores busy"
        ]
        if self._why_no_gpu:
            found.append(f"GPU  {self._why_no_gpu}")
        if self._gpu is not None:
            found.append(f"GPU  {_describe_gpu(self._gpu)}")
        return found

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _describe_gpu(gpu: NvmlSource) -> str:
    try:
        reading = gpu.read()
    except SourceError as error:
        return str(error)
    load, memory = gpu.load(), gpu.memory_used_mb()
    parts = ["load unknown" if load is None else f"{100 * load:.0f} % busy"]
    parts += [f"{value:.0f} °C" for value in reading.temperatures_c.values()]
    parts += [f"{value:.0f} W" for value in reading.power_w.values()]
    parts += [] if memory is None else [f"{memory / 1e3:.1f} GB used"]
    return ", ".join([*parts, *sorted(reading.throttling)])
