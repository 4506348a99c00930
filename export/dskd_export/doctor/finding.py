"""The outcome of one check, with its code."""

from __future__ import annotations

from typing import Literal, Optional

from pydantic import Field

from dskd_export.codes import Code, plain
from dskd_export.documents.base import Document

Level = Literal["ok", "warning", "error"]
Purpose = Literal["train", "export", "build", "benchmark"]

_LETTER: dict[Level, str] = {"ok": "I", "warning": "W", "error": "E"}


class Finding(Document):
    """The outcome of one check."""

    code: str = Field(pattern=r"^DSKD-[IWE][0-9]{3}$")
    level: Level
    what: str
    cure: Optional[str] = Field(default=None, description="what to do; None: nothing is wrong")


def make_finding(code: Code, level: Level, what: str, cure: str | None = None) -> Finding:
    """Make a finding; without a cure that of the code, unless nothing is wrong."""
    if level != "ok" and cure is None:
        cure = plain(code.cure)
    return Finding(code=f"DSKD-{_LETTER[level]}{code.number}", level=level, what=what, cure=cure)
