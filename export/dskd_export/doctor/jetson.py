"""Check a Jetson's release, power mode and clocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dskd_export import codes
from dskd_export.doctor.finding import Finding, make_finding
from dskd_export.doctor.packages import parse_version
from dskd_export.telemetry.jetson import is_jetson, model, power_mode, release
from dskd_export.telemetry.sysfs import read_text

# The first with TensorRT 10: JetPack 6.1.
OLDEST_L4T = (36, 4)


def check_jetson(root: Path) -> Iterator[Finding]:
    """Check the release, the power mode, and that the clocks are locked at their maximum.

    Args:
        root: of the file system.
    """
    if not is_jetson(root):
        return
    board, found = model(root) or "a Jetson", release(root)
    if found is None:
        yield make_finding(codes.JETPACK, "warning", f"{board}; its release is unknown: no /etc/nv_tegra_release")
    elif parse_version(found.l4t) < OLDEST_L4T:
        yield make_finding(codes.JETPACK, "warning", f"{board}, {found}, is older than JetPack 6.1")
    else:
        yield make_finding(codes.JETPACK, "ok", f"{board}, {found}")
    mode = power_mode(root)
    slow = _below_most(root)
    what = f"power mode {mode}" + (f"; {slow}" if slow else "")
    held_back = mode.name is not None and not mode.name.startswith("MAXN")
    if mode.name is None or held_back or slow:
        yield make_finding(codes.CLOCKS, "warning", what)
    else:
        yield make_finding(codes.CLOCKS, "ok", what)


def _below_most(root: Path) -> str:
    """Name which of GPU and CPU may lower its clock; empty: none, or unknown."""
    floating = []
    for name, pattern, files in (
        ("the GPU", "sys/class/devfreq/*gpu*", ("min_freq", "max_freq")),
        ("the CPU", "sys/devices/system/cpu/cpu[0-9]*/cpufreq", ("scaling_min_freq", "scaling_max_freq")),
    ):
        for folder in sorted(root.glob(pattern)):
            lowest, highest = (read_text(folder / file) for file in files)
            if lowest and highest and lowest != highest:
                floating.append(name)
                break
    return f"the clocks of {' and '.join(floating)} are not locked" if floating else ""
