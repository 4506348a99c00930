"""The GPU that engines are built for and run on, and how it is named: no torch, no toolkit, no NVML."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass

from dskd_export.errors import EnvironmentProblem, UsageError
from dskd_export.telemetry.cuda import DRIVER, cuda_gpus, cuda_version
from dskd_export.telemetry.host import driver_version


@dataclass(frozen=True)
class Gpu:
    """A CUDA device, as engines depend on it.

    Attributes:
        index: in CUDA's own order.
        compute_capability: for example `8.7`.
        memory_bytes: all of it.
        driver: version of NVIDIA's driver; None: unknown.
        cuda: newest CUDA version that the driver supports, for example `12.6`.
    """

    index: int
    name: str
    compute_capability: str
    memory_bytes: int
    driver: str | None
    cuda: str

    @property
    def target(self) -> str:
        """The compute capability as TensorRT-RTX names it: `sm87`."""
        return f"sm{self.compute_capability.replace('.', '')}"


def index_of(device: str) -> int:
    """Convert `auto`, `cuda` or `cuda:1` to CUDA's index.

    Raises:
        UsageError: it is no CUDA device.
    """
    match = re.fullmatch(r"auto|cuda(?::(\d+))?", device)
    if match is None:
        raise UsageError(f"--device {device} is no CUDA device.", "Use --device auto, cuda or cuda:1.")
    return int(match[1] or 0)


def find_gpu(index: int = 0, library: str = DRIVER) -> Gpu | None:
    """Find a CUDA device; None without a driver or without this device.

    Args:
        index: in CUDA's own order.
        library: the driver's shared library.

    Raises:
        EnvironmentProblem: the driver does not describe it.
    """
    gpus = cuda_gpus(library)
    if index >= len(gpus):
        return None
    found, cuda = gpus[index], cuda_version(library)
    if found.compute_capability is None or found.memory_mb is None or cuda is None:
        raise EnvironmentProblem(
            f"The NVIDIA driver does not describe CUDA device {index}.", "Check it with: dskd-compress doctor"
        )
    return Gpu(
        index=index,
        name=found.name,
        compute_capability=".".join(map(str, found.compute_capability)),
        memory_bytes=round(found.memory_mb * 1e6),
        driver=driver_version(),
        cuda=".".join(map(str, cuda)),
    )


def system() -> str:
    """Name the operating system and processor that an engine is bound to: `Linux aarch64`."""
    return f"{platform.system()} {platform.machine()}"
