"""The CUDA devices that this process can use, asked of the driver itself: no torch, no toolkit.

The driver counts them as CUDA programs do (it heeds CUDA_VISIBLE_DEVICES), and it is there on a
Jetson, which need not have NVML.
"""

from __future__ import annotations

import ctypes
import functools

_NAME_BYTES = 256
_BUS_ID_BYTES = 32


@functools.cache
def cuda_devices(library: str = "libcuda.so.1") -> tuple[str, ...]:
    """Names of the CUDA devices in CUDA's own order; empty without a driver or a device.

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
    names = []
    for index in range(count.value):
        device = ctypes.c_int()
        name = ctypes.create_string_buffer(_NAME_BYTES)
        if driver.cuDeviceGet(ctypes.byref(device), index) == 0:
            driver.cuDeviceGetName(name, _NAME_BYTES, device)
        names.append(name.value.decode(errors="replace") or f"CUDA device {index}")
    return tuple(names)


def cuda_bus_id(index: int, library: str = "libcuda.so.1") -> str | None:
    """PCI address of a CUDA device in CUDA's own order, `0000:1b:00.0`; None where it has none.

    NVML counts devices in another order and does not heed CUDA_VISIBLE_DEVICES: the address names one in both.

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
