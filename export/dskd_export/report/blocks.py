"""What a report is made of: sections of tables, figures, notes and commands.

The HTML and the Markdown are two renderings of the same blocks, so they cannot say different things.
All strings here are plain text; the templates escape them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dskd_export.report.tables import Table


@dataclass(frozen=True)
class Key:
    """One entry of a figure's legend: a CSS colour and an SVG dash pattern."""

    label: str
    colour: str
    dash: Sequence[int] = ()


@dataclass(frozen=True)
class Figure:
    """A chart: a Vega-Lite spec, its legend, and in words what it shows."""

    id: str
    title: str
    summary: str
    spec: dict[str, Any]
    legend: Sequence[Key] = ()
    caption: str = ""


@dataclass(frozen=True)
class Gallery:
    """Figures side by side where there is room."""

    figures: Sequence[Figure]


@dataclass(frozen=True)
class Picture:
    """A small photograph.

    Attributes:
        data: of the file.
        words: what it is, for those who do not see it.
        media: type of the file.
        lines: below it; the first one stands out.
    """

    data: bytes
    words: str
    media: Literal["image/png", "image/jpeg"] = "image/png"
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Pictures:
    """Photographs in a row, under one title."""

    title: str
    items: Sequence[Picture]
    note: str = ""


@dataclass(frozen=True)
class Heading:
    """A part of a section."""

    id: str
    text: str


@dataclass(frozen=True)
class Note:
    """A sentence that stands out: something is missing, stale, or must be known."""

    text: str
    kind: Literal["missing", "warning", "plain"] = "plain"


@dataclass(frozen=True)
class Commands:
    """Shell commands, one a line."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Settings:
    """Settings as YAML, closed until the reader opens them."""

    title: str
    yaml: str


Block = Table | Gallery | Pictures | Heading | Note | Commands | Settings


@dataclass(frozen=True)
class Section:
    """A chapter of the report; a folded one is closed until the reader opens it."""

    id: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)
    folded: bool = False


def missing_file(file: str, command: str, what: str) -> Note:
    """Name the part that a missing file leaves empty, and the command that writes the file."""
    return Note(f"{what}: {file} is not in the run folder. Run: dskd-compress {command}", "missing")
