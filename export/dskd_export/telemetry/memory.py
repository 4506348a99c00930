"""Memory of this process, as Linux counts it. https://docs.kernel.org/filesystems/proc.html, /proc/PID/status."""

from __future__ import annotations

import re
from pathlib import Path

from dskd_export.telemetry.sysfs import read_text


def resident_mb(root: Path = Path("/")) -> float | None:
    """What it holds now, 1 MB = 10^6 bytes; None where the system does not tell."""
    return _field("VmRSS", root)


def peak_mb(root: Path = Path("/")) -> float | None:
    """The most that it ever held, 1 MB = 10^6 bytes; None where the system does not tell."""
    return _field("VmHWM", root)


def _field(name: str, root: Path) -> float | None:
    match = re.search(rf"^{name}:\s+(\d+) kB", read_text(root / "proc/self/status") or "", re.MULTILINE)
    return int(match[1]) * 1024 / 1e6 if match else None
