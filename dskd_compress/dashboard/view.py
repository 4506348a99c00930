"""Draw the dashboard."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dskd_compress.dashboard.course import Course

State = Literal["running", "ended", "stopped"]
"""Of a training: ended has all its steps and its results, stopped has no process that continues it."""

_BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 40
"""Columns of a curve."""


def draw_sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """Draw a curve of block characters, one mean of values per column, scaled to the range of the means.

    Args:
        values: in order; a column without finite values is a gap.
        width: most columns.
    """
    columns = min(width, len(values))
    means = []
    for column in range(columns):
        part = values[column * len(values) // columns : (column + 1) * len(values) // columns]
        finite = [value for value in part if math.isfinite(value)]
        means.append(sum(value / len(finite) for value in finite) if finite else math.nan)
    known = [mean for mean in means if math.isfinite(mean)]
    if not known:
        return " " * columns
    low, span = min(known) / 2, max(known) / 2 - min(known) / 2  # halves: the range of any two floats is one too
    return "".join(_draw_block((mean / 2 - low) / (span or 1.0)) for mean in means)


def _draw_block(height: float) -> str:
    return _BLOCKS[round((len(_BLOCKS) - 1) * height)] if math.isfinite(height) else " "


def format_duration(seconds: float) -> str:
    """Format seconds as hours, minutes and seconds: `0:12:41`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def draw(
    title: str, course: Course, load: Sequence[str], silent_s: float, state: State = "running"
) -> RenderableType:
    """Draw a training.

    Args:
        silent_s: since the last record.
    """
    parts: list[RenderableType] = [Text(title, style="bold"), Text(_describe_progress(course, silent_s, state))]
    if course.done is not None:
        parts.append(ProgressBar(total=1.0, completed=course.done, width=WIDTH + 20))
    if course.steps:
        parts += [Text(""), _draw_steps(course)]
    if course.epochs:
        parts += [Text(""), _draw_epochs(course)]
    if course.findings:
        parts += [Text(""), *(_describe_finding(course, index) for index in range(len(course.findings)))]
    return Group(*parts, Text(""), *(Text(line, style="dim") for line in load))


def describe_stop(course: Course) -> str:
    """Describe where a training stopped: `stopped at step 39 of 1200`."""
    total = "" if course.total_steps is None else f" of {course.total_steps}"
    return f"stopped{' by a fault' if course.fault else ''} at step {course.step}{total}"


def _describe_progress(course: Course, silent_s: float, state: State) -> str:
    if not course.steps and not course.epochs:
        return "stopped before the first step" if state == "stopped" else "no record yet"
    total = "" if course.total_epochs is None else f" of {course.total_epochs}"
    words = [f"epoch {course.epoch}{total} done"]
    if course.steps:
        words += [f"step {course.steps[-1].step:,}", f"{course.steps[-1].images_per_s:,.0f} images/s"]
    if state == "ended":
        return " · ".join([*words, "ended"])
    if state == "stopped":
        return " · ".join([words[0], describe_stop(course)])
    left = course.seconds_left
    words.append("ETA after the first epoch" if left is None else f"ETA {format_duration(left)}")
    if silent_s >= 60:
        words.append(f"no record for {format_duration(silent_s)}")
    return " · ".join(words)


def _draw_steps(course: Course) -> Table:
    table = _make_table("per step", "first")
    rates = [record.learning_rate for record in course.steps]
    norms = [record.grad_norm for record in course.steps if record.grad_norm is not None]
    curves = {**course.terms, "learning rate": rates, "gradient norm": norms}
    curves |= course.monitors
    for name, values in curves.items():
        if values:
            table.add_row(Text(name), draw_sparkline(values), f"{values[-1]:.4g}", f"{values[0]:.4g}")
    return table


def _draw_epochs(course: Course) -> Table:
    table = _make_table("per epoch", "best")
    top1 = [record.top1 for record in course.epochs]
    best = course.best
    kept = "" if best is None else f"{best.top1:.2%}, epoch {best.epoch + 1}"
    table.add_row("validation top-1", draw_sparkline(top1), f"{top1[-1]:.2%}", kept)
    validation, training = [one.val_loss for one in course.epochs], [one.train_loss for one in course.epochs]
    for name, losses in (("validation loss", validation), ("training loss", training)):
        table.add_row(name, draw_sparkline(losses), f"{losses[-1]:.4g}", f"{min(losses):.4g}")
    return table


def _make_table(first: str, last: str) -> Table:
    table = Table(first, "", box=None, pad_edge=False, header_style="dim")
    for name in ("now", last):
        table.add_column(name, justify="right")
    return table


def _describe_finding(course: Course, index: int) -> Text:
    finding = course.findings[index]
    return Text(f"step {finding.step}: {finding.seen.rstrip('.')}. {finding.cure}", style="yellow")
