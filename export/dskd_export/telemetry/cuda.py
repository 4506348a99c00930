"""List the CUDA devices of this process through the driver: no torch, no toolkit.

The driver numbers them as CUDA programs do (it respects CUDA_VISIBLE_DEVICES), and it is present on a
Jetson, which may have no NVML. https://docs.nvidia.com/cuda/cuda-driver-api/
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass

DRIVER = "libcuda.so.1"

_NAME_BYTES = 256
_BUS_ID_BYTES = 32
# CUdevice_attribute
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True)
class Gpu:
    """A CUDA device.

    Attributes:
        name: of the driver.
        compute_capability: for example (8, 7); None: unknown.
        memory_mb: total, 1 MB = 10^6 bytes; None: unknown.
    """

    name: str
    compute_capability: tuple[int, int] | None = None
    memory_mb: float | None = None


def format_capability(capability: tuple[int, int]) -> str:
    """Format a compute capability: `8.7`."""
    return ".".join(map(str, capability))


@functools.cache
def cuda_gpus(library: str = DRIVER) -> tuple[Gpu, ...]:
    """List the CUDA devices in CUDA's own order; empty without a driver or a device.

    Args:
        library: the driver's shared library.
    """
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return ()
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(_gpu(driver, index) for index in range(count.value))


def cuda_devices(library: str = DRIVER) -> tuple[str, ...]:
    """List the names of the CUDA devices in CUDA's own order."""
    return tuple(gpu.name for gpu in cuda_gpus(library))


@functools.cache
def cuda_version(library: str = DRIVER) -> tuple[int, int] | None:
    """Read the newest CUDA version that the driver supports, for example (13, 0); None without a driver."""
    version = ctypes.c_int()
    try:
        driver = ctypes.CDLL(library)
        if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return version.value // 1000, version.value % 1000 // 10


def cuda_bus_id(index: int, library: str = DRIVER) -> str | None:
    """Read the PCI address of a CUDA device, `0000:1b:00.0`; None: it has none.

    NVML numbers devices in another order and ignores CUDA_VISIBLE_DEVICES: the address identifies one in both.

    Args:
        index: of the device, as in `cuda:0`.
        library: the driver's shared library.
    """
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return None
    device = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGet(ctypes.byref(device), index) != 0:
        return None
    address = ctypes.create_string_buffer(_BUS_ID_BYTES)
    if driver.cuDeviceGetPCIBusId(address, _BUS_ID_BYTES, device) != 0:
        return None
    return address.value.decode("ascii", errors="replace") or None


def _gpu(driver: ctypes.CDLL, index: int) -> Gpu:
    unknown = f"CUDA device {index}"
    device = ctypes.c_int()
    if driver.cuDeviceGet(ctypes.byref(device), index) != 0:
        return Gpu(unknown)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    major, minor = (
        _attribute(driver, which, device) for which in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR)
    )
    return Gpu(
        name=name.value.decode(errors="replace") or unknown,
        compute_capability=None if major is None or minor is None else (major, minor),
        memory_mb=_memory_mb(driver, device),
    )


def _attribute(driver: ctypes.CDLL, attribute: int, device: ctypes.c_int) -> int | None:
    value = ctypes.c_int()
    try:
        failed = driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    except AttributeError:  # a stub of the driver, as some containers have
        return None
    return None if failed else value.value


def _memory_mb(driver: ctypes.CDLL, device: ctypes.c_int) -> float | None:
    total = ctypes.c_size_t()
    try:
        failed = driver.cuDeviceTotalMem_v2(ctypes.byref(total), device)
    except AttributeError:
        return None
    return None if failed else total.value / 1e6
