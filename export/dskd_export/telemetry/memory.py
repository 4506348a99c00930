"""Memory of this process, as Linux counts it. https://docs.kernel.org/filesystems/proc.html, /proc/PID/status."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

from dskd_export.telemetry.sysfs import read_text


def resident_mb(root: Path = Path("/")) -> float | None:
    """What it holds now, 1 MB = 10^6 bytes; None where the system does not tell."""
    return _field("VmRSS", root)


def peak_mb(root: Path = Path("/")) -> float | None:
    """The most that it ever held, 1 MB = 10^6 bytes; None where the system does not tell."""
    return _field("VmHWM", root)


def give_back() -> None:
    """Have Python and the C library return to the system what nobody uses, so that growth can be seen.

    https://man7.org/linux/man-pages/man3/malloc_trim.3.html; of another C library than glibc nothing is asked.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _field(name: str, root: Path) -> float | None:
    match = re.search(rf"^{name}:\s+(\d+) kB", read_text(root / "proc/self/status") or "", re.MULTILINE)
    return int(match[1]) * 1024 / 1e6 if match else None
