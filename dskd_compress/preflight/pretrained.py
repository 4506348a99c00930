"""Find timm's pretrained weights on this machine, without asking the network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dskd_compress.config import ModelSection
from dskd_compress.preflight.findings import Findings
from dskd_compress.pretrained import find_availability
from dskd_export.errors import ModelError

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def inspect_pretrained(section: ModelSection, role: str, found: Findings) -> None:
    """Report pretrained weights that do not exist, or that this run would have to download.

    Args:
        role: teacher or student, for messages.
    """
    available = find_availability(section.name, section.kwargs)
    if available in ("cached", "unknown"):
        return
    cure = f"Give local weights with --{role}-checkpoint FILE"
    if available == "none":
        found.add(ModelError(f"timm has no pretrained weights of '{section.name}'.", cure))
    elif reason := explain_no_network():
        what = f"The pretrained weights of '{section.name}' are not in the local cache, and {reason}."
        found.add(ModelError(what, cure))
    else:
        found.warn(f"The pretrained weights of {section.name} are not cached: this run downloads them. {cure}")


def explain_no_network(environment: Mapping[str, str] | None = None, root: Path = Path("/")) -> str | None:
    """Explain why nothing can be downloaded, from what this machine says of itself; None: it may work.

    Args:
        environment: variables of the process; None: the own.
        root: of the file system.
    """
    given = os.environ if environment is None else environment
    if given.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return "HF_HUB_OFFLINE is set"
    if any(given.get(name) or given.get(name.upper()) for name in _PROXIES):
        return None
    routes = [line.split() for name in ("route", "ipv6_route") for line in _read_lines(root / "proc/net" / name)]
    if not routes or any(fields[0] != "lo" and fields[-1] != "lo" for fields in routes):
        return None  # unknown system, or a network
    return "this machine has no network"


def _read_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    # The first line of /proc/net/route names the columns; without routes it is the only one.
    return ["lo" if line.startswith("Iface") else line for line in lines]
