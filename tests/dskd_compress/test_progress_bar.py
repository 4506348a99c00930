"""The progress line: on a real terminal of several widths, and as plain lines."""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from dskd_compress.progress_bar import (
    MIN_BAR,
    PLAIN_EVERY_S,
    PLAIN_LATER_S,
    SILENCE_S,
    Bar,
    BarTask,
    fit_line,
    format_duration,
    is_live,
)

FACTS = ["loss 1.234", "top-1 91.2 %", "1234 images/s", "data 3 %"]
FIXED = (" 42 %", "ETA 0:12:41")


class Clock:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


def task_of(description: str, total: int, unit: str, clock: Clock, show: Callable[[str], None]) -> BarTask:
    return BarTask(Bar(Console(file=io.StringIO()), disable=True, now=clock), description, total, unit, show)


@pytest.mark.parametrize(
    ("width", "bar", "facts"),
    [(80, 7, 4), (78, 5, 4), (77, 13, 3), (60, 10, 2), (40, 14, 0), (31, 5, 0), (30, 0, 0), (24, 0, 0)],
)
def test_the_least_important_columns_give_way_first(width: int, bar: int, facts: int) -> None:
    assert fit_line(width, "distill", FIXED, FACTS) == ("distill"[: width - 18], bar, FACTS[:facts])


@given(st.integers(19, 200), st.text(max_size=60), st.lists(st.text(min_size=1, max_size=20), max_size=6))
def test_a_line_is_never_wider_than_its_terminal(width: int, description: str, facts: list[str]) -> None:
    first, bar, shown = fit_line(width, description, FIXED, facts)
    parts = [first, *([" " * bar] if bar else []), *FIXED, *shown]
    used = sum(cell_len(part) for part in parts) + len(parts) - 1
    assert used <= width
    assert not bar or (used == width and bar >= MIN_BAR)
    assert shown == facts[: len(shown)]


CHILD = """
import time
from dskd_compress.console import Output
with Output(json_output=False).progress("distill", 1200, unit="step") as progress:
    for step in range(504):
        progress.advance(1, ["loss 1.234", "top-1 91.2 %", "12345 images/s", "data 3 %"])
    time.sleep(0.3)
"""


def run_on_terminal(columns: int, code: str) -> list[str]:
    """Run Python with a terminal of so many columns; returns what its lines showed, redrawn ones too."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
    }
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=slave, stdout=slave, stderr=slave, env={**environment, "TERM": "xterm"}
    )
    os.close(slave)
    seen = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux's way to say that the other side is closed
            break
        if not part:
            break
        seen += part
    os.close(master)
    assert process.wait() == 0, seen
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    return [line for line in re.split(r"[\r\n]+", text) if line.strip()]


@pytest.mark.parametrize(
    ("columns", "shown", "hidden"),
    [
        (80, ["loss 1.234", "top-1 91.2 %", "12345 images/s", "data 3 %"], ["504/1200"]),
        (60, ["loss 1.234", "top-1 91.2 %"], ["images/s"]),
        (40, [], ["loss"]),
    ],
)
def test_on_a_real_terminal_every_line_has_its_width(columns: int, shown: list[str], hidden: list[str]) -> None:
    lines = run_on_terminal(columns, CHILD)
    assert {len(line) for line in lines} == {columns}
    last = lines[-1]
    assert re.match(r"distill [━╸╺]+  42 % ETA \d+:\d\d:\d\d", last)
    assert all(text in last for text in shown)
    assert not any(text in last for text in hidden)


def test_a_terminal_that_cannot_be_redrawn_gets_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as file:
        monkeypatch.setenv("TERM", "xterm")
        assert is_live(Console(file=file))
        monkeypatch.setenv("TERM", "dumb")
        assert not is_live(Console(file=file))
    os.close(master)
    assert not is_live(Console(file=io.StringIO(), force_terminal=True))


def test_rate_leaves_out_what_was_done_before() -> None:
    clock, shown = Clock(), list[str]()
    task = task_of("w", 1000, "step", clock, shown.append)
    task.advance(900)  # resumed
    task.close()
    assert shown == ["w: 900/1000 steps, 90 %, ETA -:--:--"]
    for _ in range(10):
        clock.s += 0.5
        task.advance(1)
    task.close()
    assert shown[-1] == "w: 910/1000 steps, 91 %, ETA 0:00:45, 2.0 steps/s"  # 90 left at 2/s
    for _ in range(200):
        clock.s += 4.0
        task.advance(0.25)
    task.close()
    assert shown[-1] == "w: 960/1000 steps, 96 %, ETA 0:10:40, 16.0 s/step"  # of the last minutes only


def test_rate_with_a_clock_that_stands_still() -> None:
    shown = list[str]()
    task = task_of("w", 10, "it", Clock(), shown.append)
    task.advance(1)
    task.advance(1)
    task.close()
    assert shown == ["w: 2/10 it, 20 %, ETA -:--:--"]


def test_plain_lines_come_seldom_and_at_the_end() -> None:
    clock, shown = Clock(), list[str]()
    lines = task_of("Training [x]", 100, "step", clock, shown.append)
    for step in range(100):
        clock.s += 0.25
        lines.advance(1, [f"loss {step:.1f}"])
    lines.close()
    lines.close()
    assert [line.split(" steps")[0].split()[-1] for line in shown] == [f"{n}/100" for n in (20, 40, 60, 80, 100)]
    assert shown[0] == "Training [x]: 20/100 steps, 20 %, ETA 0:00:20, loss 19.0"
    assert shown[-1] == "Training [x]: 100/100 steps, 100 %, in 0:00:25, loss 99.0"
    assert PLAIN_EVERY_S == 5.0


def test_a_long_work_has_a_line_a_minute() -> None:
    clock, times = Clock(), list[float]()
    lines = task_of("w", 10**6, "step", clock, lambda _: times.append(clock.s - 100.0))
    for _ in range(10 * 3600):
        clock.s += 1.0
        lines.advance(1)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert times[0] == PLAIN_EVERY_S
    assert (max(gaps), gaps[-1]) == (PLAIN_LATER_S, PLAIN_LATER_S)
    assert len(times) < 700


def test_work_that_does_not_advance_has_lines_as_well() -> None:
    """An engine that is built for minutes."""
    clock, shown = Clock(), list[str]()
    task = task_of("Building int8", 2, "engine", clock, shown.append)
    for _ in range(100):
        clock.s += 1.0
        task.show_when_due()
    assert shown[0] == "Building int8: 0/2 engines, 0 %, ETA -:--:--, 0:00:05 so far"
    assert len(shown) == 1 + int((100 - PLAIN_EVERY_S) // SILENCE_S)
    task.update(description="Building fp16")
    clock.s += PLAIN_EVERY_S
    task.show_when_due()
    assert shown[-1].startswith("Building fp16: 0/2 engines")


def test_nothing_to_do_is_done() -> None:
    shown = list[str]()
    task_of("w", 0, "run", Clock(), shown.append).close()
    assert shown == ["w: 0/0 runs, 100 %, in 0:00:00"]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (61.9, "0:01:01"), (360_000, "100:00:00")])
def test_a_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
