"""Measure the memory of this process and the CPU time of others, the most common disturbance of a shared machine.

https://docs.kernel.org/filesystems/proc.html: "Miscellaneous kernel statistics in /proc/stat", /proc/PID/status.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from dskd_export.telemetry.sysfs import read_text

_LEAST_S = 0.25


@dataclass(frozen=True)
class CpuTime:
    """CPU times at one moment.

    Attributes:
        at_s: of a monotonic clock.
        busy_s: CPU time of all processes since the machine started.
        own_s: CPU time of this process.
    """

    at_s: float
    busy_s: float
    own_s: float


def cpu_time(root: Path = Path("/")) -> CpuTime | None:
    """Read the CPU times; None: unknown."""
    busy = parse_busy_ticks(read_text(root / "proc/stat") or "")
    if busy is None:
        return None
    return CpuTime(time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), time.process_time())


def parse_busy_ticks(stat: str) -> int | None:
    """Parse the busy ticks of all CPUs from the text of /proc/stat; user and nice include guests."""
    first = stat.splitlines()[0].split() if stat else []
    if len(first) < 9 or first[0] != "cpu":
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(ticks) for ticks in first[1:9])
    return user + nice + system + irq + softirq + steal


def busy_cores(before: CpuTime | None, after: CpuTime | None) -> float | None:
    """Average number of cores kept busy by all processes between two moments; None: unknown."""
    if before is None or after is None or after.at_s <= before.at_s:
        return None
    return max(0.0, (after.busy_s - before.busy_s) / (after.at_s - before.at_s))


def other_cores(before: CpuTime | None, after: CpuTime | None) -> float | None:
    """Average number of cores kept busy by other processes between two moments; None: unknown.

    The kernel counts in ticks of 10 ms for each core: a quarter of a second is the shortest usable window.
    """
    if before is None or after is None or after.at_s - before.at_s < _LEAST_S:
        return None
    others_s = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    return max(0.0, others_s / (after.at_s - before.at_s))


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
