"""Check the GPU, its driver and its memory."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from dskd_export import codes
from dskd_export.doctor.finding import Finding, Level, make_finding
from dskd_export.telemetry.cuda import DRIVER, Gpu, cuda_version
from dskd_export.telemetry.host import driver_version

# A small model, its engine and CUDA's own context.
LEAST_MEMORY_MB = 1000.0


def check_gpu(gpus: Sequence[Gpu], required: bool) -> Iterator[Finding]:
    """Check that there is a GPU, and that it has free memory.

    Args:
        gpus: devices that the driver lists.
        required: without a GPU this is an error.
    """
    level: Level = "error" if required else "warning"
    if not gpus:
        yield _no_gpu(level, required)
        return
    version = cuda_version()
    cuda = "" if version is None else f", CUDA up to {version[0]}.{version[1]}"
    named = "; ".join(_format_gpu(gpu) for gpu in gpus)
    yield make_finding(codes.GPU, "ok", f"{named}; driver {driver_version() or 'unknown'}{cuda}")
    free_mb = free_memory_mb()
    if free_mb is not None and free_mb < LEAST_MEMORY_MB:
        what = f"{free_mb:.0f} MB of GPU memory free; a small model needs {LEAST_MEMORY_MB:.0f} MB"
        yield make_finding(codes.GPU_MEMORY, level, what)


def _no_gpu(level: Level, required: bool) -> Finding:
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        if Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"):
            return make_finding(codes.GPU, level, f"an NVIDIA driver is installed, but {DRIVER} cannot be loaded")
        if required:
            return make_finding(codes.GPU, level, f"no NVIDIA GPU: {DRIVER} is missing")
        return make_finding(codes.GPU, "ok", "no NVIDIA GPU: everything runs on the CPU")
    return make_finding(codes.GPU, level, f"{DRIVER} lists no CUDA device")


def _format_gpu(gpu: Gpu) -> str:
    capability = gpu.compute_capability
    parts = [
        *([] if capability is None else [f"compute capability {capability[0]}.{capability[1]}"]),
        *([] if gpu.memory_mb is None else [f"{gpu.memory_mb / 1e3:.1f} GB"]),
    ]
    return f"{gpu.name} ({', '.join(parts)})" if parts else gpu.name


def free_memory_mb() -> float | None:
    """Read the free memory of the first GPU in MB = 10^6 bytes; None without nvidia-smi, as on a Jetson."""
    command = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return int(done.stdout.split()[0]) * 1024**2 / 1e6
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
