"""Output of a command: text and tables, progress, and with `--json` one document on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

from pydantic import BaseModel
from pydantic_core import to_json
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.protocol import is_renderable
from rich.table import Table
from rich.text import Text

from dskd_compress.launch import get_process_rank
from dskd_compress.progress_bar import Bar, BarTask, is_live

PLAIN_WIDTH = 120
"""Columns of a table that goes to a file or a pipe."""

_document_written = False


def is_document_written() -> bool:
    """Check whether this process has printed its JSON document, which stays the last line."""
    return _document_written


def write_document(document: BaseModel | Mapping[str, Any]) -> None:
    """Print one line of JSON, ASCII only; NaN and infinity become null."""
    global _document_written
    plain = json.loads(to_json(document, by_alias=True, inf_nan_mode="null"))
    sys.stdout.write(json.dumps(plain) + "\n")
    sys.stdout.flush()
    _document_written = True


class Progress(Protocol):
    """Progress of a task."""

    def advance(self, n: float = 1, facts: Sequence[str] | None = None) -> None:
        """Add `n` units; `facts` are shown next to the bar, the most important first: `["loss 1.234"]`."""
        ...

    def update(self, *, description: str) -> None:
        """Change the description."""
        ...


class Output:
    """Where a command writes. Of several processes that train together only the main one prints.

    Args:
        json_output: stdout is kept for the document; all else goes to stderr.
        quiet: nothing is shown at all.
    """

    def __init__(self, json_output: bool, *, quiet: bool = False) -> None:
        heard = get_process_rank().is_main and not quiet
        self.json_output = json_output and heard
        self.console = _console(stderr=json_output)
        self._errors = self.console if json_output else _console(stderr=True)
        self.console.quiet = self._errors.quiet = not heard
        self._said: set[str] = set()

    @property
    def is_live(self) -> bool:
        """Whether this output is a terminal that can be redrawn."""
        return is_live(self.console)

    def print(self, *renderables: RenderableType) -> None:
        """Show text (with Rich markup: escape what comes from a user) or Rich renderables."""
        # Lines are left whole: a path that was wrapped at column 80 cannot be copied.
        self.console.print(*renderables, soft_wrap=all(isinstance(item, str) for item in renderables))

    def plain(self, text: str) -> None:
        """Show text as it is, on one line."""
        self.console.print(Text(text), soft_wrap=True)

    def once(self, text: str) -> None:
        """Show plain text on one line, unless this output has shown it before."""
        if text not in self._said:
            self._said.add(text)
            self.plain(text)

    def warn(self, text: str) -> None:
        """Show a warning, plain text, on stderr."""
        self._errors.print(f"[yellow]warning:[/yellow] {escape(text)}", soft_wrap=True)

    def warn_once(self, text: str) -> None:
        """Show a warning unless this output has shown it before."""
        if text not in self._said:
            self._said.add(text)
            self.warn(text)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Show a table with rows. Cells are plain text or Rich renderables; columns of numbers align right."""
        cells = [[_cell(value) for value in row] for row in rows]
        if not cells:
            return
        table = Table(title=Text(title, style="bold"), title_justify="left")
        for index, column in enumerate(columns):
            numbers = bool(cells) and all(_is_number(row[index]) for row in cells)
            # On a narrow terminal other columns give way: a verdict is never cut.
            whole = column == "verdict"
            table.add_column(Text(column), justify="right" if numbers else "left", overflow="fold", no_wrap=whole)
        for row in cells:
            table.add_row(*row)
        self.console.print(table)

    def result(self, document: BaseModel | Mapping[str, Any]) -> None:
        """With `--json`, print the command's document; call it once, last."""
        if self.json_output:
            write_document(document)

    @contextmanager
    def progress(self, description: str, total: int, unit: str = "it") -> Iterator[Progress]:
        """Show progress towards `total` units: a bar on a terminal, else a line now and then."""
        show = None if self.is_live or self.console.quiet else self.plain
        with Bar(self.console, disable=not self.is_live) as bar:
            task = BarTask(bar, description, total, unit, show)
            with task.watch():
                yield task


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=PLAIN_WIDTH)


def _cell(value: object) -> RenderableType:
    if is_renderable(value) and not isinstance(value, str):
        return cast("RenderableType", value)
    return Text(str(value))


def _is_number(cell: RenderableType) -> bool:
    text = cell.plain if isinstance(cell, Text) else ""
    try:
        float(text.replace(",", "").rstrip(" %"))
    except ValueError:
        return text in ("", "-")
    return True
