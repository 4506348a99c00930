"""The CUDA devices that this process can use, asked of the driver itself: no torch, no toolkit.

The driver counts them as CUDA programs do (it heeds CUDA_VISIBLE_DEVICES), and it is there on a
Jetson, which need not have NVML.
"""

from __future__ import annotations

import ctypes
import functools

_NAME_BYTES = 256


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
