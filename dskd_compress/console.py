"""Output of a command: text and tables, progress, and with `--json` one document on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

from pydantic import BaseModel
from pydantic_core import to_json
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.protocol import is_renderable
from rich.table import Table
from rich.text import Text

from dskd_compress.launch import place_of_this_process

PLAIN_EVERY_S = 5.0
"""Least time between two progress lines where there is no terminal to redraw."""

PLAIN_WIDTH = 120
"""Columns of a table that goes to a file or a pipe."""

_RATE_WINDOW_S = 30.0

_document_written = False


def document_written() -> bool:
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
        heard = place_of_this_process().leads and not quiet
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
        """Show a table. Cells are plain text or Rich renderables; columns of numbers align right."""
        cells = [[_cell(value) for value in row] for row in rows]
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
        meter = _Meter(description, total, unit)
        if self.console.is_terminal and not self.console.quiet:
            with _bar(self.console) as bar:
                yield _Bar(meter, bar)
            return
        lines = _Lines(meter, self.print)
        try:
            yield lines
        finally:
            lines.close()


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


class _Meter:
    """Counts units and estimates the rate over the last 30 seconds."""

    def __init__(self, description: str, total: int, unit: str, now: Callable[[], float] = time.monotonic) -> None:
        self.description = description
        self.total = total
        self.unit = unit
        self.done: float = 0
        self.fields: dict[str, object] = {}
        self._now = now
        self._seen: deque[tuple[float, float]] = deque()

    def advance(self, n: float, fields: Mapping[str, object]) -> None:
        self.done += n
        self.fields.update(fields)
        now = self._now()
        # The first call only sets the zero: a resumed run begins with what was done before.
        self._seen.append((now, self.done))
        while len(self._seen) > 2 and now - self._seen[0][0] > _RATE_WINDOW_S:
            self._seen.popleft()

    @property
    def rate(self) -> float | None:
        """Units per second; None before two calls."""
        if len(self._seen) < 2:
            return None
        (began, first), (ended, last) = self._seen[0], self._seen[-1]
        return (last - first) / (ended - began) if ended > began else None

    @property
    def rate_text(self) -> str:
        rate = self.rate
        if not rate:
            return ""
        return f"{rate:.1f} {self.unit}/s" if rate >= 1 else f"{1 / rate:.1f} s/{self.unit}"

    @property
    def eta_text(self) -> str:
        rate = self.rate
        if not rate or self.done >= self.total:
            return ""
        minutes, seconds = divmod(round((self.total - self.done) / rate), 60)
        hours, minutes = divmod(minutes, 60)
        return f"ETA {hours}:{minutes:02}:{seconds:02}"

    @property
    def count_text(self) -> str:
        return f"{self.done:g}/{self.total} {self.unit}"

    @property
    def fields_text(self) -> str:
        return " ".join(f"{name} {value}" for name, value in self.fields.items())


def _bar(console: Console) -> RichProgress:
    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        *(TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in ("count", "rate", "eta", "shown")),
        console=console,
        expand=True,
    )


class _Bar:
    def __init__(self, meter: _Meter, bar: RichProgress) -> None:
        self._meter = meter
        self._bar = bar
        self._task = bar.add_task(meter.description, total=meter.total, **self._texts())

    def _texts(self) -> dict[str, Any]:
        meter = self._meter
        return {
            "count": meter.count_text,
            "rate": meter.rate_text,
            "eta": meter.eta_text,
            "shown": meter.fields_text,
        }

    def advance(self, n: float = 1, **fields: object) -> None:
        self._meter.advance(n, fields)
        self._bar.update(self._task, completed=self._meter.done, **self._texts())

    def update(self, *, description: str) -> None:
        self._meter.description = description
        self._bar.update(self._task, description=description)


class _Lines:
    def __init__(
        self, meter: _Meter, show: Callable[[str], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._meter = meter
        self._show = show
        self._now = now
        self._last = now()
        self._shown = -1.0

    def advance(self, n: float = 1, **fields: object) -> None:
        self._meter.advance(n, fields)
        if self._now() - self._last >= PLAIN_EVERY_S:
            self._line()

    def update(self, *, description: str) -> None:
        self._meter.description = description

    def close(self) -> None:
        """Print the last line, also where the work ended early."""
        if self._shown != self._meter.done:
            self._line()

    def _line(self) -> None:
        meter = self._meter
        parts = (meter.count_text, meter.rate_text, meter.eta_text, meter.fields_text)
        self._show(escape(f"{meter.description}: {', '.join(part for part in parts if part)}"))
        self._last, self._shown = self._now(), meter.done
