"""What a report is made of: sections of tables, figures, notes and commands.

The HTML and the Markdown are two renderings of the same blocks, so they cannot say different things.
All strings here are plain text; the templates escape them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

CellKind = Literal["text", "number", "code", "pass", "fail", "unproven", "stale", "missing"]


@dataclass(frozen=True)
class Cell:
    """One cell; the kind says how it looks."""

    text: str
    kind: CellKind = "text"


def number(text: str) -> Cell:
    """A number, right-aligned."""
    return Cell(text, "number")


def code(text: str) -> Cell:
    """A hash, a command or a file name."""
    return Cell(text, "code")


def verdict_cell(verdict: str, text: str = "") -> Cell:
    """A verdict as a badge.

    Args:
        verdict: decides the badge.
        text: to show; empty: the verdict itself.
    """
    kinds: dict[str, CellKind] = {"PASS": "pass", "FAIL": "fail", "NOT SHOWN": "unproven"}
    return Cell(text or verdict, kinds.get(verdict, "missing"))


def missing(reason: str) -> Cell:
    """A value that does not exist, with the reason."""
    return Cell(reason, "missing")


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows."""

    id: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    folded: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.id}: {len(self.columns)} columns, but a row of {len(row)} cells")


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
    """A small photograph: a PNG, and in words what it is."""

    png: bytes
    words: str


@dataclass(frozen=True)
class Pictures:
    """Photographs in a row, under one title."""

    title: str
    items: Sequence[Picture]


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


Block = Table | Gallery | Pictures | Heading | Note | Commands


@dataclass(frozen=True)
class Section:
    """A chapter of the report."""

    id: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)


def not_there(file: str, command: str, what: str) -> Note:
    """The part that a missing file leaves empty, and the command that makes the file."""
    return Note(f"{what}: {file} is not in the run folder. Made by: dskd-compress {command}", "missing")
