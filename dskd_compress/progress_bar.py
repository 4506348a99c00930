"""Progress of a task on one line: a bar that fits its terminal, or plain lines at intervals."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import Progress, Task
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

PLAIN_EVERY_S = 5.0
"""Least time between two lines where there is no terminal to redraw; it grows with the time that has passed."""

PLAIN_LATER_S = 60.0
"""Most time between two lines of work that advances."""

SILENCE_S = 30.0
"""Time after which work that does not advance gets a line."""

MIN_BAR = 5
"""Columns of the shortest bar."""

_PLAIN_SHARE = 0.05
_MIN_DESCRIPTION = 5
_RATE_OVER_S = 300.0  # long enough to hold a validation between two epochs


def is_live(console: Console) -> bool:
    """Check whether a console is a terminal that can be redrawn; one that is only to have colours is none."""
    return console.is_interactive and console.file.isatty() and not console.quiet


def format_duration(seconds: float) -> str:
    """Format seconds as hours, minutes and seconds: `0:12:41`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def fit_line(
    width: int, description: str, fixed: Sequence[str], facts: Iterable[str]
) -> tuple[str, int, list[str]]:
    """Fit one line to a terminal: of the facts the first ones, then the bar, then less of the description.

    Args:
        width: columns of the terminal.
        fixed: what is never left out.
        facts: the most important first.

    Returns:
        Description, columns of the bar (0: no bar), and the facts, which fill the width with one space between.
    """
    left = width - sum(cell_len(text) + 1 for text in fixed)
    bar = MIN_BAR
    if cell_len(description) + 1 + bar > left:
        bar = 0
        description = set_cell_size(description, max(0, min(cell_len(description), left)))
    left -= cell_len(description) + (1 + bar if bar else 0)
    shown = []
    for fact in facts:
        if not bar or cell_len(fact) + 1 > left:
            break
        shown.append(fact)
        left -= cell_len(fact) + 1
    return description, bar + max(0, left) if bar else 0, shown


class Bar(Progress):
    """One task on one line of a terminal."""

    def __init__(self, console: Console, *, disable: bool, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console=console, disable=disable, get_time=now, speed_estimate_period=_RATE_OVER_S)

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Draw the tasks, each on a line that has the width of the terminal."""
        lines = Table.grid(expand=True)
        for task in tasks:
            lines.add_row(self._draw(task))
        return lines

    def _draw(self, task: Task) -> Table:
        percent, eta = f"{count_percent(task):3} %", describe_time(task)
        facts = [*task.fields["facts"], *describe_rate(task)]
        description, bar, shown = fit_line(self.console.width, task.description, (percent, eta), facts)
        cells: list[tuple[int, Text | ProgressBar]] = [(cell_len(description), Text(description))]
        if bar:
            cells.append((bar, ProgressBar(total=task.total or 1.0, completed=task.completed, width=bar)))
        cells += [
            (len(percent), Text(percent, "progress.percentage")),
            (len(eta), Text(eta, "progress.remaining")),
        ]
        cells += [(cell_len(fact), Text(fact)) for fact in shown]
        line = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
        for width, _ in cells:
            line.add_column(width=width, no_wrap=True)
        line.add_row(*(cell for _, cell in cells))
        return line


def count_percent(task: Task) -> int:
    """Count the per cent of a task that are done; 100 only at its end."""
    if task.completed >= (task.total or 0):
        return 100
    return int(100 * task.completed / (task.total or 1))


def describe_time(task: Task) -> str:
    """Describe the time that is left, or that it took."""
    if task.completed >= (task.total or 0):
        return f"in {format_duration(task.elapsed or 0.0)}"
    left = task.time_remaining
    return "ETA -:--:--" if left is None else f"ETA {format_duration(left)}"


def describe_rate(task: Task) -> list[str]:
    """Describe count and rate, or the time so far where the rate is unknown."""
    unit, speed = task.fields["unit"], task.speed
    units = unit if unit == "it" or task.total == 1 else f"{unit}s"
    count = f"{task.completed:g}/{task.total:g} {units}"
    if speed:
        return [count, f"{speed:.1f} {units}/s" if speed >= 1 else f"{1 / speed:.1f} s/{unit}"]
    return [count, f"{format_duration(task.elapsed or 0.0)} so far"] if task.elapsed else [count]


def format_line(task: Task) -> str:
    """Format the progress of a task as one line of plain text."""
    count, *rate = describe_rate(task)
    facts = task.fields["facts"] or rate
    return f"{task.description}: " + ", ".join([count, f"{count_percent(task)} %", describe_time(task), *facts])


class BarTask:
    """A task on a bar. Where no terminal redraws it, `show` gets a line now and then."""

    def __init__(
        self, bar: Bar, description: str, total: int, unit: str, show: Callable[[str], None] | None
    ) -> None:
        self._bar = bar
        self._show = show
        self._id = bar.add_task(description, total=total, unit=unit, facts=())
        self._began_s = self._last_s = bar.get_time()
        self._shown: tuple[float, str] | None = None
        self._lock = threading.Lock()

    @property
    def _task(self) -> Task:
        return self._bar.tasks[0]

    def advance(self, n: float = 1, facts: Sequence[str] | None = None) -> None:
        """Add `n` units; `facts` are shown next to the bar, the most important first."""
        if facts is not None:
            self._task.fields["facts"] = tuple(facts)
        self._bar.advance(self._id, n)
        self.show_when_due()

    def update(self, *, description: str) -> None:
        """Change the description."""
        self._bar.update(self._id, description=description)

    def show_when_due(self) -> None:
        """Print a line if the last one was some time ago."""
        now = self._bar.get_time()
        wait_s = min(PLAIN_LATER_S, max(PLAIN_EVERY_S, _PLAIN_SHARE * (now - self._began_s)))
        with self._lock:
            if self._shown == self._state():
                wait_s = max(wait_s, SILENCE_S)
            if now - self._last_s >= wait_s:
                self._print_line()

    def close(self) -> None:
        """Print the last line, also where the work ended early."""
        with self._lock:
            if self._shown != self._state():
                self._print_line()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Print lines also while the work does not advance; the last one at the end."""
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(1.0):
                self.show_when_due()

        watcher = None if self._show is None else threading.Thread(target=look, daemon=True)
        if watcher is not None:
            watcher.start()
        try:
            yield
        finally:
            ended.set()
            if watcher is not None:
                watcher.join()
            self.close()

    def _state(self) -> tuple[float, str]:
        return self._task.completed, self._task.description

    def _print_line(self) -> None:
        self._last_s, self._shown = self._bar.get_time(), self._state()
        if self._show is not None:
            self._show(format_line(self._task))
