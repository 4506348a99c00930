from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from rich.text import Text

from dskd_compress import console
from dskd_compress.console import Output, is_document_written
from dskd_compress.recipe import load_recipe
from dskd_export.documents.base import Interval
from dskd_export.settings import ValidateSettings


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(console, "_document_written", False)


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


def test_without_a_terminal_progress_is_plain_lines(capsys):
    output = Output(json_output=False)

    def work() -> None:
        with output.progress("Work [x]", 10, unit="image") as progress:
            progress.advance(3, ["loss 1.0"])
            progress.update(description="Harder [work]")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        work()
    out = capsys.readouterr().out
    assert re.fullmatch(r"Harder \[work\]: 3/10 images, 30 %, ETA [-\d:]+, loss 1\.0\n", out)


def test_colours_alone_make_no_terminal(capsys, monkeypatch):
    """As in CI logs, where each redrawn bar would be a line of control characters."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    output = Output(json_output=False)
    with output.progress("work", 2) as progress:
        progress.advance(2)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.startswith("work: 2/2 it, 100 %, in 0:00:00")
