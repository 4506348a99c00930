"""How busy this machine is: the GPU where NVML tells, and the CPU."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType

from dskd_export.telemetry.cpu_time import busy_cores, cpu_time
from dskd_export.telemetry.host import usable_cores
from dskd_export.telemetry.nvml import NvmlSource
from dskd_export.telemetry.reading import SourceError


class Load:
    """Watches CPU and, where one is trained on, a GPU.

    Args:
        device: of the training, `cpu` or `cuda:0`; what it is matters for the GPU alone.
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

    def lines(self) -> list[str]:
        """Now, in words: one line a device. What cannot be told says why."""
        now = cpu_time()
        busy = busy_cores(self._before, now)
        self._before = now
        found = [
            "CPU  not told by this system" if busy is None else f"CPU  {busy:.1f} of {usable_cores()} cores busy"
        ]
        if self._why_no_gpu:
            found.append(f"GPU  {self._why_no_gpu}")
        if self._gpu is not None:
            found.append(f"GPU  {_words(self._gpu)}")
        return found

    def __enter__(self) -> Load:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()


def _words(gpu: NvmlSource) -> str:
    try:
        reading = gpu.read()
    except SourceError as error:
        return str(error)
    load, memory = gpu.load(), gpu.memory_used_mb()
    parts = ["load not told" if load is None else f"{100 * load:.0f} % busy"]
    parts += [f"{value:.0f} °C" for value in reading.temperatures_c.values()]
    parts += [f"{value:.0f} W" for value in reading.power_w.values()]
    parts += [] if memory is None else [f"{memory / 1e3:.1f} GB used"]
    return ", ".join([*parts, *sorted(reading.throttling)])
