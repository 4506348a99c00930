"""How much of the machine's CPU time other processes took: on a shared machine the commonest disturbance.

https://docs.kernel.org/filesystems/proc.html, "Miscellaneous kernel statistics in /proc/stat".
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from dskd_export.telemetry.sysfs import read_text

_LEAST_S = 0.25


@dataclass(frozen=True)
class CpuTime:
    """A moment.

    Attributes:
        at_s: of a monotonic clock.
        busy_s: CPU time of all processes since the machine started.
        own_s: CPU time of this process.
    """

    at_s: float
    busy_s: float
    own_s: float


def cpu_time(root: Path = Path("/")) -> CpuTime | None:
    """Now; None where the system does not tell."""
    busy = parse_busy_ticks(read_text(root / "proc/stat") or "")
    if busy is None:
        return None
    return CpuTime(time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), time.process_time())


def parse_busy_ticks(stat: str) -> int | None:
    """Ticks that all CPUs were busy, from the text of /proc/stat; what guests took is within user and nice."""
    first = stat.splitlines()[0].split() if stat else []
    if len(first) < 9 or first[0] != "cpu":
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(ticks) for ticks in first[1:9])
    return user + nice + system + irq + softirq + steal


def busy_cores(before: CpuTime | None, after: CpuTime | None) -> float | None:
    """Cores that all processes kept busy on the average between two moments; None where it cannot be told."""
    if before is None or after is None or after.at_s <= before.at_s:
        return None
    return max(0.0, (after.busy_s - before.busy_s) / (after.at_s - before.at_s))


def other_cores(before: CpuTime | None, after: CpuTime | None) -> float | None:
    """Cores that others kept busy on the average between two moments; None where it cannot be told.

    The kernel counts in ticks of 10 ms for each core, so less than a quarter of a second tells nothing.
    """
    if before is None or after is None or after.at_s - before.at_s < _LEAST_S:
        return None
    others_s = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    return max(0.0, others_s / (after.at_s - before.at_s))
