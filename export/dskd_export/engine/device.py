"""The GPU as the driver describes it: no torch, no toolkit, no NVML.

CUDA driver API: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html
"""

from __future__ import annotations

import ctypes
import functools
import platform
import re
from dataclasses import dataclass

from dskd_export.errors import EnvironmentProblem, UsageError
from dskd_export.telemetry.host import driver_version

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NAME_BYTES = 256


@dataclass(frozen=True)
class Gpu:
    """One CUDA device.

    Attributes:
        index: in CUDA's own order.
        compute_capability: for example `8.7`.
        memory_bytes: all of it.
        driver: version of NVIDIA's driver; None: the system does not tell.
        cuda: newest CUDA version that the driver runs, for example `12.6`.
    """

    index: int
    name: str
    compute_capability: str
    memory_bytes: int
    driver: str | None
    cuda: str

    @property
    def target(self) -> str:
        """The compute capability as a target is named: `sm87`."""
        return f"sm{self.compute_capability.replace('.', '')}"


def index_of(device: str) -> int:
    """CUDA's index of `auto`, `cuda` or `cuda:1`.

    Raises:
        UsageError: it is none of them.
    """
    match = re.fullmatch(r"auto|cuda(?::(\d+))?", device)
    if match is None:
        raise UsageError(f"There is no device {device} for TensorRT.", "Give --device auto, cuda or cuda:1.")
    return int(match[1] or 0)


@functools.cache
def find_gpu(index: int = 0, library: str = "libcuda.so.1") -> Gpu | None:
    """A CUDA device; None where there is no driver, or no such device.

    Args:
        index: in CUDA's own order.
        library: the driver's shared library.
    """
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return None
    count, device, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or index >= count.value:
        return None
    major, minor, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    asked = (
        driver.cuDeviceGet(ctypes.byref(device), index),
        driver.cuDeviceGetName(name, _NAME_BYTES, device),
        driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device),
        driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device),
        driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device),
        driver.cuDriverGetVersion(ctypes.byref(version)),
    )
    if any(asked):
        raise EnvironmentProblem(
            f"The NVIDIA driver does not describe CUDA device {index} (error {max(asked)}).",
            "Look at it with: dskd-compress doctor",
        )
    return Gpu(
        index=index,
        name=name.value.decode(errors="replace") or f"CUDA device {index}",
        compute_capability=f"{major.value}.{minor.value}",
        memory_bytes=memory.value,
        driver=driver_version(),
        cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
    )


def system() -> str:
    """Operating system and processor, which an engine is bound to: `Linux aarch64`."""
    return f"{platform.system()} {platform.machine()}"
