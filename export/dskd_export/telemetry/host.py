"""Describe the machine that a number comes from. Parsers are pure; `host_facts` reads the system."""

from __future__ import annotations

import functools
import importlib
import math
import os
import platform
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path, PurePosixPath

from dskd_export.documents.base import DeviceFacts
from dskd_export.telemetry.cuda import cuda_devices, cuda_gpus, format_capability

# CPU implementer and part of Arm cores as Linux shows them (arch/arm64/include/asm/cputype.h).
_ARM_CORES = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4B): "Cortex-A78C",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x4E, 0x003): "Denver 2",
    (0x4E, 0x004): "Carmel",
}
# Flag and name of the vectors, widest first, and of what computes in 8 bits with them.
_SIMD = (
    (("avx512f", "AVX-512"), (("avx512_vnni", "VNNI"), ("amx_int8", "AMX"))),
    (("avx2", "AVX2"), (("avx_vnni", "VNNI"),)),
    (("sve2", "SVE2"), (("i8mm", "I8MM"), ("asimddp", "DOT"))),
    (("sve", "SVE"), (("i8mm", "I8MM"), ("asimddp", "DOT"))),
    (("asimd", "NEON"), (("i8mm", "I8MM"), ("asimddp", "DOT"))),
    (("sse4_2", "SSE4.2"), ()),
)


def host_facts(device: str = "cpu") -> DeviceFacts:
    """Describe the machine that this process runs on.

    Args:
        device: that a number was measured on, `cpu` or `cuda:0`. GPU and driver are recorded for a CUDA device
            only.
    """
    gpu = capability = driver = None
    if device.startswith("cuda"):
        index = int(device.partition(":")[2] or 0)
        names = cuda_devices()
        gpu = names[index] if index < len(names) else None
        found = [one.compute_capability for one in cuda_gpus()][index : index + 1]
        capability = format_capability(found[0]) if found and found[0] is not None else None
        driver = driver_version()
    cpu = parse_cpu_model(_read("/proc/cpuinfo")) or platform.processor() or platform.machine()
    model = board()
    return DeviceFacts(
        device=device,
        cpu=f"{cpu}, {model}" if model else cpu,
        cores=usable_cores(),
        memory_gb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        gpu=gpu,
        compute_capability=capability,
        driver=driver,
        platform=platform.platform(),
        governor=governor(Path("/sys/devices/system/cpu")),
        simd=parse_simd(_read("/proc/cpuinfo")),
        pinned_cores=pinned_cores(),
    )


def board() -> str | None:
    """Read the board's name from the device tree, for example `NVIDIA Jetson Orin Nano`; None elsewhere."""
    return _read("/proc/device-tree/model").strip("\0\n ") or None


def usable_cores(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Count the cores this process may use: its affinity, and its control group's quota rounded up."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    quota = cpu_quota(cgroups, _read("/proc/self/cgroup"))
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def parse_cpu_model(cpuinfo: str) -> str | None:
    """Parse the CPU's name from the text of /proc/cpuinfo; None: unknown.

    x86 has `model name`. Arm may have one that names no core, and always an implementer and a part for each core,
    which may differ from core to core.
    """
    pairs = [line.partition(":")[::2] for line in cpuinfo.splitlines()]
    values = [(key.strip(), value.strip()) for key, value in pairs]
    implementers = [int(value, 16) for key, value in values if key == "CPU implementer"]
    parts = [int(value, 16) for key, value in values if key == "CPU part"]
    if parts and len(parts) == len(implementers):
        names = Counter(
            _ARM_CORES.get(core, f"Arm core {core[0]:#04x}/{core[1]:#05x}")
            for core in zip(implementers, parts, strict=True)
        )
        return " + ".join(name if len(names) == 1 else f"{count}x {name}" for name, count in names.items())
    for wanted in ("model name", "Hardware", "cpu", "Model"):
        for key, value in values:
            if key == wanted and value:
                return re.sub(r"\s+", " ", value)
    return None


def parse_simd(cpuinfo: str) -> str | None:
    """Parse the widest vector unit from the text of /proc/cpuinfo; None: unknown.

    Instructions for 8-bit products are named with it: they decide what int8 gains.
    """
    match = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    flags = set(match[1].split()) if match else set()
    for wide, eight_bit in _SIMD:
        if wide[0] in flags:
            return " ".join([wide[1], *(name for flag, name in eight_bit if flag in flags)])
    return None


def pinned_cores() -> list[int] | None:
    """List the cores that this process is limited to; None: it may use all."""
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return None
    return None if len(allowed) == os.cpu_count() else sorted(allowed)


def available_memory() -> int | None:
    """Read the bytes that a new program can use: available memory, or less in a limited container."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"), flags=re.MULTILINE)
    if match is None:
        return None
    free = int(match.group(1)) * 1024
    cgroup = Path("/sys/fs/cgroup")
    try:
        limit = (cgroup / "memory.max").read_text(encoding="ascii").strip()
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return free  # no limit that we can see
    return min(free, max(int(limit) - used, 0)) if limit.isdigit() else free


def cpu_quota(cgroups: Path, membership: str) -> float | None:
    """Read the CPU quota of the control group in CPUs; None without a limit.

    Args:
        cgroups: mount point of the hierarchies.
        membership: the text of /proc/self/cgroup. Limits of all ancestors count.
    """
    limits = []
    for line in membership.splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = [cgroups, cgroups / "unified"] if not controllers else [cgroups / controllers, cgroups / "cpu"]
        relative = PurePosixPath(group.lstrip("/"))
        for folder in (mount / part for mount in mounts for part in (relative, *relative.parents)):
            if not controllers:
                limits.append(parse_cpu_max(_read(folder / "cpu.max")))
            else:
                quota, period = (_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
                limits.append(parse_cpu_max(f"{quota} {period}"))
    return min((limit for limit in limits if limit is not None), default=None)


def parse_cpu_max(text: str) -> float | None:
    """Parse CPUs from `<quota> <period>` in microseconds; None for `max`, -1 or an empty text."""
    fields = text.split()
    if len(fields) != 2 or not all(field.isdigit() for field in fields) or int(fields[1]) == 0:
        return None
    return int(fields[0]) / int(fields[1])


def governor(cpus: Path) -> str | None:
    """Read the frequency governor, all of them if cores differ; None: the system has none."""
    found = {_read(path).strip() for path in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {""}
    return ", ".join(sorted(found)) or None


@functools.cache
def driver_version() -> str | None:
    """Read the version of the NVIDIA driver from NVML, else from nvidia-smi; None: unknown."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        try:
            found = nvml.nvmlSystemGetDriverVersion()
        finally:
            nvml.nvmlShutdown()
        return found.decode() if isinstance(found, bytes) else str(found)
    except ImportError:
        pass
    except Exception as error:
        if type(error).__module__ != "pynvml":  # NVMLError: no driver, or one without NVML as on a Jetson
            raise
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_driver_version(answer.stdout)


def parse_driver_version(text: str) -> str | None:
    """Parse the first line of nvidia-smi's answer; None if it is no version."""
    first = (text.strip().splitlines() or [""])[0].strip()
    return first if re.fullmatch(r"\d+(\.\d+)+", first) else None


def _read(path: str | Path) -> str:
    """Read a small system file; empty if it is missing."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def device_name(gpu: str | None = None) -> str:
    """Name this device as a folder: its board, else its GPU, else its CPU.

    Args:
        gpu: name of the GPU in use; None: the first one of this machine.
    """
    gpus = (gpu,) if gpu else cuda_devices()
    return folder_name(board() or (gpus[0] if gpus else host_facts().cpu))


def folder_name(text: str) -> str:
    """Turn a name into that of a folder: `Orin (nvgpu)` -> `orin-nvgpu`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "device"
