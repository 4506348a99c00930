"""Tables of a report and their cells, as plain text; the templates escape it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dskd_export.documents.base import Interval
from dskd_export.report import formatting as fmt

CellKind = Literal["text", "number", "code", "pass", "fail", "unproven", "stale", "missing"]


_SHORT = 24  # signs of a reason that stands in its cell; a longer one stands below the table
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Cell:
    """One cell: its text, its look, and a reason that `make_table` puts below the table.

    `shade` colours the ground of a cell of a confusion matrix: right, wrong1 to wrong4. `nowrap` keeps its text on
    one line.
    """

    text: str
    kind: CellKind = "text"
    reason: str = ""
    shade: str = ""
    nowrap: bool = False


def number(value: str | float | Interval | None, reason: str = "") -> Cell:
    """Make a right-aligned number.

    Args:
        value: text as it is; a float with three digits; an interval in brackets; None: a dash.
        reason: why there is none.
    """
    if value is None:
        return missing(reason) if reason else Cell("–", "number")
    if isinstance(value, Interval):
        return Cell(fmt.around(value), "number")
    return Cell(value if isinstance(value, str) else fmt.significant(value), "number")


def code(text: str) -> Cell:
    """Make a cell for a hash, a command or a file name."""
    return Cell(text, "code")


def verdict_cell(verdict: str, text: str = "", reason: str = "") -> Cell:
    """Make a badge.

    Args:
        verdict: decides the badge.
        text: to show; empty: the verdict itself.
        reason: of the verdict.
    """
    kinds: dict[str, CellKind] = {"PASS": "pass", "FAIL": "fail", "NOT SHOWN": "unproven"}
    return Cell(text or verdict, kinds.get(verdict, "missing"), reason)


def missing(reason: str) -> Cell:
    """Make a cell for a value that does not exist: a short reason, or a dash with the reason below the table."""
    return Cell(reason, "missing") if len(reason) <= _SHORT else Cell("–", "missing", reason)


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows; `reasons` are the numbered notes that its cells refer to."""

    id: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    folded: bool = False
    reasons: Sequence[str] = ()

    @property
    def numeric_columns(self) -> frozenset[int]:
        """Indices of the columns that hold a number."""
        return frozenset(index for row in self.rows for index, cell in enumerate(row) if cell.kind == "number")


def make_table(
    id: str, caption: str, rows: Sequence[Mapping[str, Cell]], note: str = "", *, folded: bool = False
) -> Table:
    """Make a table from rows that name their columns; each reason appears once below it, under a number.

    Args:
        id: of the HTML element.
        caption: above the table.
        rows: column head -> cell, all with the same heads; none make an empty table.
        note: below the table.
        folded: closed until the reader opens it.

    Raises:
        ValueError: rows of different columns.
    """
    columns = tuple(rows[0]) if rows else ()
    if any(tuple(row) != columns for row in rows):
        raise ValueError(f"table {id}: its rows do not all have the columns {columns}")
    reasons = list(dict.fromkeys(cell.reason for row in rows for cell in row.values() if cell.reason))

    def mark(cell: Cell) -> Cell:
        if not cell.reason:
            return cell
        sign = str(reasons.index(cell.reason) + 1).translate(_SUPERSCRIPT)
        return replace(cell, text=f"{cell.text}{fmt.NBSP}{sign}")

    cells = [[mark(cell) for cell in row.values()] for row in rows]
    return Table(id, caption, columns, cells, note, folded, reasons)
