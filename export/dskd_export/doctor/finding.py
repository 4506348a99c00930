"""Make the outcome of one check; run scripts that a broken library may crash in a child process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any, Literal, Optional

from pydantic import Field

from dskd_export.child_process import make_script_command
from dskd_export.codes import Code, plain
from dskd_export.documents.base import Document

TIMEOUT_S = 120


class DoesNotImport(Exception):
    """The last line of the process, or how it ended."""


def run_script(script: str) -> Any:
    """Run a script and return the JSON in its last line.

    Raises:
        DoesNotImport: it failed, was killed, or ran too long.
    """
    try:
        done = subprocess.run(
            make_script_command(script),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DoesNotImport(f"the import takes longer than {TIMEOUT_S} s") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise DoesNotImport(said[-1])
    return json.loads(done.stdout.strip().splitlines()[-1])


Level = Literal["ok", "warning", "error"]
Purpose = Literal["train", "export", "build", "benchmark"]

_LETTER: dict[Level, str] = {"ok": "I", "warning": "W", "error": "E"}


class Finding(Document):
    """The outcome of one check."""

    code: str = Field(pattern=r"^DSKD-[IWE][0-9]{3}$")
    level: Level
    what: str
    cure: Optional[str] = Field(default=None, description="what to do; None: nothing is wrong")
    found: tuple[str, ...] = Field(default=(), description="what is usable: GPUs, providers, versions, modules")

    @property
    def number(self) -> int:
        """Number of its code."""
        return int(self.code[-3:])


def make_finding(
    code: Code, level: Level, what: str, cure: str | None = None, found: Sequence[str] = ()
) -> Finding:
    """Make a finding; without a cure that of the code, unless nothing is wrong."""
    if level != "ok" and cure is None:
        cure = plain(code.cure)
    return Finding(
        code=f"DSKD-{_LETTER[level]}{code.number}", level=level, what=what, cure=cure, found=tuple(found)
    )
