"""Measure the memory of this process. https://docs.kernel.org/filesystems/proc.html, /proc/PID/status."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

from dskd_export.telemetry.sysfs import read_text


def resident_mb(root: Path = Path("/")) -> float | None:
    """Read the resident memory, 1 MB = 10^6 bytes; None: unknown."""
    return _field("VmRSS", root)


def peak_mb(root: Path = Path("/")) -> float | None:
    """Read the peak resident memory, 1 MB = 10^6 bytes; None: unknown."""
    return _field("VmHWM", root)


def give_back() -> None:
    """Return unused memory of Python and glibc to the system, so that growth can be measured.

    https://man7.org/linux/man-pages/man3/malloc_trim.3.html.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _field(name: str, root: Path) -> float | None:
    match = re.search(rf"^{name}:\s+(\d+) kB", read_text(root / "proc/self/status") or "", re.MULTILINE)
    return int(match[1]) * 1024 / 1e6 if match else None
