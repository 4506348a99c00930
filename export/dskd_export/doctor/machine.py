"""Check disk, memory, the folder of the results, the GPU, and a Jetson's release, power mode and clocks."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from dskd_export import codes
from dskd_export.doctor.finding import Finding, Level, Purpose, make_finding
from dskd_export.doctor.packages import parse_version
from dskd_export.telemetry.cuda import DRIVER, Gpu, cuda_version
from dskd_export.telemetry.host import available_memory, driver_version
from dskd_export.telemetry.jetson import is_jetson, model, power_mode, release
from dskd_export.telemetry.sysfs import read_text

_GIB = 1024**3


def check_disk(folder: Path) -> Iterator[Finding]:
    """Check that the disk has room for a run."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield make_finding(codes.DISK, "error", f"{folder}: {error.strerror}")
        return
    what = f"{free / _GIB:.1f} GiB free in {folder}"
    if free < 0.1 * _GIB:
        yield make_finding(codes.DISK, "error", what)
    elif free < 2 * _GIB:
        yield make_finding(codes.DISK, "warning", what)
    else:
        yield make_finding(codes.DISK, "ok", what)


def check_memory(purpose: Purpose | None) -> Iterator[Finding]:
    """Check that there is enough memory for a run."""
    free = available_memory()
    if free is None:
        yield make_finding(codes.MEMORY, "warning", "free memory is unknown", "Watch it during the first run.")
        return
    what = f"{free / _GIB:.1f} GiB of memory available"
    least = 0.5 if purpose == "benchmark" else 2.0
    if free < least * _GIB:
        cure = "Close other programs, or lower train.batch_size and data.workers."
        yield make_finding(codes.MEMORY, "warning", what, cure)
    else:
        yield make_finding(codes.MEMORY, "ok", what)


def check_folder(folder: Path) -> Iterator[Finding]:
    """Check that the folder is writable."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        yield make_finding(codes.WRITABLE, "error", f"{folder} is not writable: {error.strerror}")
    else:
        yield make_finding(codes.WRITABLE, "ok", f"{folder} is writable")


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
    driver = driver_version() or "unknown"
    yield make_finding(codes.GPU, "ok", f"{named}; driver {driver}{cuda}", found=[gpu.name for gpu in gpus])
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


# The first with TensorRT 10: JetPack 6.1.
OLDEST_L4T = (36, 4)


def check_jetson(root: Path) -> Iterator[Finding]:
    """Check the release, the power mode, and that the clocks are locked at their maximum.

    Args:
        root: of the file system.
    """
    if not is_jetson(root):
        return
    board, found = model(root) or "a Jetson", release(root)
    if found is None:
        yield make_finding(codes.JETPACK, "warning", f"{board}; its release is unknown: no /etc/nv_tegra_release")
    elif parse_version(found.l4t) < OLDEST_L4T:
        yield make_finding(codes.JETPACK, "warning", f"{board}, {found}, is older than JetPack 6.1")
    else:
        yield make_finding(codes.JETPACK, "ok", f"{board}, {found}")
    mode = power_mode(root)
    slow = _below_most(root)
    what = f"power mode {mode}" + (f"; {slow}" if slow else "")
    held_back = mode.name is not None and not mode.name.startswith("MAXN")
    if mode.name is None or held_back or slow:
        yield make_finding(codes.CLOCKS, "warning", what)
    else:
        yield make_finding(codes.CLOCKS, "ok", what)


def _below_most(root: Path) -> str:
    """Name which of GPU and CPU may lower its clock; empty: none, or unknown."""
    floating = []
    for name, pattern, files in (
        ("the GPU", "sys/class/devfreq/*gpu*", ("min_freq", "max_freq")),
        ("the CPU", "sys/devices/system/cpu/cpu[0-9]*/cpufreq", ("scaling_min_freq", "scaling_max_freq")),
    ):
        for folder in sorted(root.glob(pattern)):
            lowest, highest = (read_text(folder / file) for file in files)
            if lowest and highest and lowest != highest:
                floating.append(name)
                break
    return f"the clocks of {' and '.join(floating)} are not locked" if floating else ""
