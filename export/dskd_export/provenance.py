"""How a number was obtained: command, time, seed, commit, versions, device."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

from dskd_export import __version__
from dskd_export.documents import Provenance
from dskd_export.file_names import is_utf8, shell_bytes
from dskd_export.telemetry.host import host_facts

_PACKAGES = ("torch", "timm", "torchvision", "onnx", "onnxscript", "onnxruntime", "numpy", "pillow")


class Stopwatch:
    """Started when a stage starts; asked for the provenance when it ends."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._started_at = datetime.datetime.now(datetime.timezone.utc)

    @property
    def seconds(self) -> float:
        """Wall time since the start."""
        return time.perf_counter() - self._began

    def provenance(self, *, seed: int, device: str, recipe_sha256: str) -> Provenance:
        """Everything that a reader of a number must know."""
        return Provenance(
            command=command_line(),
            started_at=self._started_at.isoformat(timespec="seconds"),
            seconds=self.seconds,
            seed=seed,
            commit=commit(),
            versions=versions(),
            device=host_facts(device),
            recipe_sha256=recipe_sha256,
        )


def command_line() -> str:
    """The command that is running, as a person would type it; the tool without its folder."""
    given = (shlex.quote(word) if is_utf8(word) else shell_bytes(word) for word in sys.argv[1:])
    return " ".join(("dskd-compress", *given))


def versions() -> dict[str, str]:
    """Versions of this tool, Python, and the installed packages that shape a result."""
    found = {"dskd-compress": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Commit of the checkout that this code runs from; None for an installed wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head, changed = (
            subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
            for arguments in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}+dirty" if changed else head
