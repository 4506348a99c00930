"""Output of a command: text and tables, progress, and with `--json` one document on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol, cast

from pydantic import BaseModel
from pydantic_core import to_json
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, ProgressColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.progress import Task as RichTask
from rich.protocol import is_renderable
from rich.table import Table
from rich.text import Text

from dskd_compress.launch import get_process_rank

PLAIN_EVERY_S = 5.0
"""Least time between two progress lines where there is no terminal to redraw."""

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

    def advance(self, n: float = 1, **fields: object) -> None:
        """Add `n` units; fields are shown next to the count, for example `loss="1.23"`."""
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
        """Show progress towards `total` units: a bar on a terminal, else a line every few seconds."""
        on_terminal = self.console.is_terminal and not self.console.quiet
        with _open_bar(self.console, disable=not on_terminal) as bar:
            task = _Task(bar, description, total, unit, None if on_terminal else self.print)
            try:
                yield task
            finally:
                task.close()


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


class _Facts(ProgressColumn):
    """Count, rate over the last 30 seconds, time left, and what `advance` was given."""

    def render(self, task: RichTask) -> Text:
        """Write them on one line."""
        unit, left = task.fields["unit"], task.time_remaining
        parts = [f"{task.completed:g}/{task.total} {unit}"]
        if speed := task.speed:
            parts.append(f"{speed:.1f} {unit}/s" if speed >= 1 else f"{1 / speed:.1f} s/{unit}")
            parts += [f"ETA {timedelta(seconds=int(left))}"] if left else []
        parts.append(" ".join(f"{name} {value}" for name, value in task.fields["shown"].items()))
        return Text(", ".join(filter(None, parts)))


def _open_bar(console: Console, *, disable: bool, now: Callable[[], float] = time.monotonic) -> RichProgress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=None), _Facts())
    return RichProgress(*columns, console=console, expand=True, disable=disable, get_time=now)


class _Task:
    """A task on a bar; where no terminal redraws it, `show` gets a line every few seconds."""

    def __init__(
        self, bar: RichProgress, description: str, total: int, unit: str, show: Callable[[str], None] | None
    ) -> None:
        self._bar = bar
        self._show = show
        self._id = bar.add_task(description, total=total, unit=unit, shown={})
        self._last_s = bar.get_time()
        self._shown = -1.0

    @property
    def _task(self) -> RichTask:
        return self._bar.tasks[0]

    def advance(self, n: float = 1, **fields: object) -> None:
        self._task.fields["shown"].update(fields)
        self._bar.advance(self._id, n)
        if self._bar.get_time() - self._last_s >= PLAIN_EVERY_S:
            self._print_line()

    def update(self, *, description: str) -> None:
        self._bar.update(self._id, description=description)

    def close(self) -> None:
        """Print the last line, also where the work ended early."""
        if self._shown != self._task.completed:
            self._print_line()

    def _print_line(self) -> None:
        self._last_s, self._shown = self._bar.get_time(), self._task.completed
        if self._show is not None:
            self._show(escape(f"{self._task.description}: {_Facts().render(self._task)}"))
