"""Identify a Jetson: model, release, power mode. Reads files and calls `nvpmodel`; needs no root.

- release: `/etc/nv_tegra_release`, else the version of the package nvidia-l4t-core
- power mode: `/var/lib/nvpmodel/status` (`pmode:0002 fmode:quiet`) with the names in `/etc/nvpmodel.conf`,
  else `nvpmodel -q`; Jetson Linux Developer Guide, "Power Mode Controls":
  https://docs.nvidia.com/jetson/archives/r36.4.3/DeveloperGuide/SD/PlatformPowerAndPerformance/JetsonOrinNanoSeriesJetsonOrinNxSeriesAndJetsonAgxOrinSeries.html#power-mode-controls
- JetPack of a release: https://developer.nvidia.com/embedded/jetpack-archive
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dskd_export.telemetry.sysfs import read_text

_JETPACKS = {
    "35.1.0": "5.0.2",
    "35.2.1": "5.1",
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5.0": "5.1.3",
    "35.6.0": "5.1.4",
    "36.2.0": "6.0 DP",
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5.0": "6.2.2",
    "38.2.0": "7.0",
    "38.2.1": "7.0",
    "38.2.2": "7.0",
    "38.4.0": "7.1",
    "39.2.0": "7.2",
}
_QUERY_SECONDS = 10


@dataclass(frozen=True)
class Release:
    """The software of a Jetson.

    Attributes:
        l4t: version of Jetson Linux, `36.4.4`.
        jetpack: the JetPack it belongs to; None for a release that this table does not hold.
    """

    l4t: str
    jetpack: str | None

    def __str__(self) -> str:
        return f"L4T {self.l4t}" + (f", JetPack {self.jetpack}" if self.jetpack else "")


@dataclass(frozen=True)
class PowerMode:
    """The power mode that nvpmodel has set.

    Attributes:
        name: `MAXN_SUPER`, `15W`; None where it cannot be known.
        number: its number, which means another mode on another board.
        reason: why it is not known, empty where it is.
    """

    name: str | None
    number: int | None
    reason: str = ""

    def __str__(self) -> str:
        known = [self.name] if self.name else []
        return " ".join([*known, *([f"(mode {self.number})"] if self.number is not None else [])]) or self.reason


def model(root: Path = Path("/")) -> str | None:
    """The board by its device tree: `NVIDIA Jetson AGX Orin Developer Kit`; None without a device tree."""
    return read_text(root / "proc/device-tree/model") or None


def is_jetson(root: Path = Path("/")) -> bool:
    """Whether this is a Jetson (or a machine with its Linux)."""
    return "Jetson" in (model(root) or "") or release(root) is not None


def release(root: Path = Path("/")) -> Release | None:
    """The Jetson Linux that runs here; None where none does."""
    l4t = parse_release(read_text(root / "etc/nv_tegra_release") or "")
    if l4t is None:
        l4t = parse_dpkg_status(read_text(root / "var/lib/dpkg/status") or "")
    return None if l4t is None else Release(l4t, _JETPACKS.get(l4t))


def parse_release(text: str) -> str | None:
    """`# R36 (release), REVISION: 4.4, GCID: ...` -> `36.4.4`."""
    match = re.match(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*(\d+(?:\.\d+)*)", text)
    return f"{match[1]}.{match[2]}" if match else None


def parse_dpkg_status(text: str) -> str | None:
    """Version of the installed nvidia-l4t-core without its build: `36.4.4-20250616085344` -> `36.4.4`."""
    # The file holds thousands of packages; only the one stanza is looked at.
    found = re.search(r"^Package: nvidia-l4t-core\n(?:.+\n?)*", text, re.MULTILINE)
    fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", found[0], re.MULTILINE)) if found else {}
    if not fields.get("Status", "").endswith(" installed"):
        return None
    return fields.get("Version", "").split("-")[0] or None


def power_mode(root: Path = Path("/"), command: str | None = "nvpmodel") -> PowerMode:
    """The power mode that is set.

    Args:
        root: of the file system.
        command: called if the files do not name the mode; None: never.
    """
    number = parse_status(read_text(root / "var/lib/nvpmodel/status") or "")
    if number is not None:
        name = parse_mode_names(read_text(root / "etc/nvpmodel.conf") or "").get(number)
        return PowerMode(name, number, "" if name else "/etc/nvpmodel.conf does not name this mode")
    if not is_jetson(root):
        return PowerMode(None, None, "not a Jetson")
    found = None if command is None else shutil.which(command)
    if found is None:
        return PowerMode(None, None, "/var/lib/nvpmodel/status cannot be read and nvpmodel is not installed")
    try:
        done = subprocess.run(
            [found, "-q"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_QUERY_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return PowerMode(None, None, f"nvpmodel -q: {error}")
    return parse_query(done.stdout) or PowerMode(
        None, None, f"nvpmodel -q ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-200:]}"
    )


def parse_status(text: str) -> int | None:
    """`pmode:0002 fmode:quiet` -> 2."""
    match = re.search(r"\bpmode:(\d+)", text)
    return int(match[1]) if match else None


def parse_mode_names(text: str) -> dict[int, str]:
    """Names in nvpmodel.conf, `< POWER_MODEL ID=2 NAME=MAXN_SUPER >`, by number."""
    found = re.findall(r"^\s*<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", text, re.MULTILINE)
    return {int(number): name for number, name in found}


def parse_query(text: str) -> PowerMode | None:
    """The answer of `nvpmodel -q`: `NV Power Mode: MAXN`, its number in the next line, warnings around."""
    match = re.search(r"^NV Power Mode:\s*(\S+)\s*$(?:\s*^(\d+)\s*$)?", text, re.MULTILINE)
    return PowerMode(match[1], int(match[2]) if match[2] else None) if match else None
