from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from dskd_compress import console
from dskd_compress.console import PLAIN_EVERY_S, Output, is_document_written
from dskd_compress.recipe import load_recipe
from dskd_export.documents.base import Interval
from dskd_export.settings import ValidateSettings


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(console, "_document_written", False)


class Clock:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


def test_text_goes_to_stdout(capsys):
    output = Output(json_output=False)
    output.print("[bold]name[/bold]: " + "x" * 200)
    output.result({"a": 1})
    out, err = capsys.readouterr()
    assert out == "name: " + "x" * 200 + "\n"
    assert err == ""
    assert not is_document_written()


def test_with_json_stdout_holds_the_document_alone(capsys):
    output = Output(json_output=True)
    output.print("words")
    output.table("T", ["a"], [[1]])
    with output.progress("work", 2) as progress:
        progress.advance(2)
    output.warn("careful")
    output.result(
        {
            "n": 1,
            "path": Path("a/b"),
            "interval": Interval.model_construct(value=0.5, low=float("nan"), high=float("inf")),
        }
    )
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert json.loads(out) == {"n": 1, "path": "a/b", "interval": {"value": 0.5, "low": None, "high": None}}
    for word in ("words", "T", "work: 2/2", "warning: careful"):
        assert word in err
    assert is_document_written()


def test_the_document_is_ascii_and_uses_the_names_of_the_file(capsys):
    output = Output(json_output=True)
    output.result({"class": "Käfer \u2028 \U0001f600"})
    line = capsys.readouterr().out
    assert line.isascii()
    assert json.loads(line) == {"class": "Käfer \u2028 \U0001f600"}
    output.result(load_recipe("digits/resnet18-to-mobilenetv3_small_050"))
    assert ValidateSettings.model_validate(json.loads(capsys.readouterr().out)["validate"])


def test_warnings_go_to_stderr_as_plain_text(capsys):
    Output(json_output=False).warn("folder [bold]x[/bold] [/] " + "y" * 150)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "warning: folder [bold]x[/bold] [/] " + "y" * 150 + "\n"


def test_table_cells_are_plain_text_or_renderables(capsys):
    rows = [["[red]a[/red]", 1.25, Text("PASS", style="green"), None], ["b", 10, "[/]", Path("p")]]
    Output(json_output=False).table("Title [x]", ["name", "ms", "gate", "rest"], rows)
    out = capsys.readouterr().out
    for text in ("Title [x]", "[red]a[/red]", "PASS", "[/]", "None"):
        assert text in out
    # Numbers align at their right end.
    one, ten = (next(line for line in out.splitlines() if cell in line) for cell in ("1.25", "10 "))
    assert one.index("1.25") + 4 == ten.index("10 ") + 2


def test_a_table_without_rows_is_not_shown(capsys):
    Output(json_output=False).table("T", ["a", "b"], [])
    assert capsys.readouterr().out == ""


def task_of(description: str, total: int, unit: str, clock: Clock, shown: list[str]) -> console._Task:
    bar = console._open_bar(Console(file=io.StringIO()), disable=True, now=clock)
    return console._Task(bar, description, total, unit, shown.append)


def test_rate_leaves_out_what_was_done_before():
    clock, shown = Clock(), list[str]()
    task = task_of("w", 1000, "step", clock, shown)
    task.advance(900)  # resumed
    task.close()
    assert shown == ["w: 900/1000 step"]
    for _ in range(10):
        clock.s += 0.5
        task.advance(1)
    task.close()
    assert shown[-1] == "w: 910/1000 step, 2.0 step/s, ETA 0:00:45"  # 90 left at 2/s
    for _ in range(100):
        clock.s += 4.0
        task.advance(0.5)
    task.close()
    assert ", 8.0 s/step, ETA " in shown[-1]  # of the last half minute only


def test_rate_with_a_clock_that_stands_still():
    shown = list[str]()
    task = task_of("w", 10, "it", Clock(), shown)
    task.advance(1)
    task.advance(1)
    task.close()
    assert shown == ["w: 2/10 it"]


def test_plain_lines_come_seldom_and_at_the_end():
    clock, shown = Clock(), list[str]()
    lines = task_of("Training [x]", 100, "step", clock, shown)
    for step in range(100):
        clock.s += 0.25
        lines.advance(1, loss=f"{step:.1f}")
    lines.close()
    lines.close()
    assert [line.split(" step")[0].split()[-1] for line in shown] == [f"{n}/100" for n in (20, 40, 60, 80, 100)]
    assert shown[0] == r"Training \[x]: 20/100 step, 4.0 step/s, ETA 0:00:20, loss 19.0"
    assert PLAIN_EVERY_S == 5.0


def test_the_last_line_comes_also_when_the_work_fails(capsys):
    output = Output(json_output=False)

    def work() -> None:
        with output.progress("Work", 10, unit="image") as progress:
            progress.advance(3)
            progress.update(description="Harder work")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        work()
    assert capsys.readouterr().out == "Harder work: 3/10 image\n"


def test_a_bar_on_a_terminal():
    output = Output(json_output=False)
    output.console = Console(file=io.StringIO(), force_terminal=True, width=200, highlight=False)
    with output.progress("Training [the] student", 4, unit="step") as progress:
        progress.advance(1, loss="1.234")
        progress.advance(1, loss="1.111")
        output.print("between")
        progress.update(description="Ending")
        progress.advance(2, loss="0.999")
    shown = output.console.file.getvalue()  # type: ignore[attr-defined]
    for text in ("between", "4/4 step", "loss 0.999", "Ending", "\x1b["):
        assert text in shown
