"""Find the GPU that engines are built for and run on, without torch or NVML; refuse a full disk or GPU."""

from __future__ import annotations

import platform
import re
import shutil
from pathlib import Path

from dskd_export import codes
from dskd_export.engine.document import GpuFacts
from dskd_export.errors import EnvironmentProblem, UsageError
from dskd_export.telemetry.cuda import DRIVER, cuda_gpus, cuda_version
from dskd_export.telemetry.host import driver_version


def index_of(device: str) -> int:
    """Convert `auto`, `cuda` or `cuda:1` to CUDA's index.

    Raises:
        UsageError: it is no CUDA device.
    """
    match = re.fullmatch(r"auto|cuda(?::(\d+))?", device)
    if match is None:
        raise UsageError(f"--device {device} is no CUDA device.", "Use --device auto, cuda or cuda:1.")
    return int(match[1] or 0)


def find_gpu(index: int = 0, library: str = DRIVER) -> GpuFacts | None:
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
    return GpuFacts(
        name=found.name,
        compute_capability=".".join(map(str, found.compute_capability)),
        memory_mb=found.memory_mb,
        driver=driver_version(),
        cuda=".".join(map(str, cuda)),
    )


def system() -> str:
    """Name the operating system and processor that an engine is bound to: `Linux aarch64`."""
    return f"{platform.system()} {platform.machine()}"


def refuse_full_disk(folder: Path, needed_mb: float) -> None:
    """Check the free space before minutes of building.

    Args:
        folder: of the engine; it or a parent exists.
        needed_mb: expected size of the engine, 1 MB = 10^6 bytes.

    Raises:
        EnvironmentProblem: there is less.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free_mb = shutil.disk_usage(existing).free / 1e6
    if free_mb < needed_mb:
        raise EnvironmentProblem(
            f"The engine needs {needed_mb:.0f} MB; {existing} has {free_mb:.0f} MB free.",
            code=codes.ENGINE_DISK,
        )


def gpu_out_of_memory(what: str, message: str) -> EnvironmentProblem:
    """Make the error of a call that ran out of GPU memory.

    Args:
        what: the model, for example `model.fp16.onnx`.
        message: of the library.
    """
    return EnvironmentProblem(f"{what} ran out of GPU memory: {message}", code=codes.GPU_MEMORY)
