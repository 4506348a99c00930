"""Cells and tables: numbers align, each reason appears once below the table."""

from __future__ import annotations

import pytest

from dskd_export.documents.base import Interval
from dskd_export.report.tables import Cell, make_table, missing, number, verdict_cell

LONG = "this ONNX Runtime has no CUDA provider"


def test_rows_name_their_columns() -> None:
    table = make_table("t", "Title", [{"a": Cell("x"), "b": number(1.0)}, {"a": Cell("y"), "b": number(None)}])
    assert tuple(table.columns) == ("a", "b")
    assert [[cell.text for cell in row] for row in table.rows] == [["x", "1.00"], ["y", "–"]]
    assert table.numeric_columns == {1}
    assert table.reasons == []


def test_a_reason_appears_once_below_the_table_under_its_number() -> None:
    rows = [
        {"a": missing(LONG), "verdict": verdict_cell("FAIL", reason="p99 is 9 ms")},
        {"a": missing(LONG), "verdict": verdict_cell("PASS")},
        {"a": missing("not run"), "verdict": verdict_cell("PASS", reason="p99 is 3 ms")},
    ]
    table = make_table("t", "Title", rows)
    assert table.reasons == [LONG, "p99 is 9 ms", "p99 is 3 ms"]
    texts = [[cell.text.replace("\u00a0", " ") for cell in row] for row in table.rows]
    assert texts == [["– ¹", "FAIL ²"], ["– ¹", "PASS"], ["not run", "PASS ³"]]
    assert [row[1].kind for row in table.rows] == ["fail", "pass", "pass"]


def test_more_than_nine_reasons() -> None:
    table = make_table("t", "Title", [{"a": Cell("x", reason=f"reason {index}")} for index in range(12)])
    assert table.rows[-1][0].text.endswith("¹²")
    assert len(table.reasons) == 12


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123, "0.0123"),
        ("97.8 %", "97.8 %"),
        (Interval(value=1.23, low=1.2, high=1.27), "1.23 (1.20–1.27)"),
        (Interval(value=1.23, low=1.23, high=1.23), "1.23"),
        (0.0, "0"),
        (None, "–"),
    ],
)
def test_numbers(value: float | str | Interval | None, text: str) -> None:
    assert number(value) == Cell(text, "number")


def test_a_missing_number_keeps_its_reason() -> None:
    assert number(None, LONG) == Cell("–", "missing", LONG)
    assert number(None, "no file") == Cell("no file", "missing")


@pytest.mark.parametrize("second", [{"a": Cell("1")}, {"b": Cell("2"), "a": Cell("1")}])
def test_a_ragged_table_is_refused(second: dict[str, Cell]) -> None:
    with pytest.raises(ValueError, match="table t"):
        make_table("t", "t", [{"a": Cell("1"), "b": Cell("2")}, second])


def test_no_rows_make_an_empty_table() -> None:
    table = make_table("t", "t", [])
    assert (table.columns, table.rows) == ((), [])
