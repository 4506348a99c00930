"""The notebook runs from its first cell to its last, prints accuracies and times, and shows the report."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from readme_blocks import DOCS

from dskd_export.documents.base import read_document
from dskd_export.documents.benchmark import BenchmarkDocument

NOTEBOOK = DOCS / "quickstart.ipynb"

pytestmark = pytest.mark.usefixtures("no_document_yet")


def read_cells() -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return cells


def run_cell(source: str, names: dict[str, Any]) -> object:
    """Run a cell as Jupyter does; its value is that of a last line that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, NOTEBOOK.name, "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), names)


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = read_cells()
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        assert cell["cell_type"] == "markdown" or (cell["outputs"], cell["execution_count"]) == ([], None)


def test_the_notebook_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    values = [run_cell("".join(cell["source"]), names) for cell in read_cells() if cell["cell_type"] == "code"]
    out, err = capsys.readouterr()
    assert err == ""
    teacher, student = (float(value) for value in re.findall(r"^(?:teacher|student): ([\d.]+)%", out, re.M))
    assert min(teacher, student) > 80, "ten digits, of which guessing gets a tenth right"
    assert re.search(r"^(PASS|NOT SHOWN|FAIL) - ", out, re.M)
    timed = read_document(Path("runs/digits/benchmark.json"), BenchmarkDocument)
    assert {row.precision for row in timed.rows if row.model == "student"} == {"fp32", "fp16", "int8"}
    assert len(re.findall(r"^student (fp32|fp16|int8): p50 [\d.]+ ms, [\d.]+ MB$", out, re.M)) == 3
    shown = values[-1]._repr_html_()  # type: ignore[attr-defined]
    assert shown.startswith("<div><iframe srcdoc=")
    assert "The student&amp;#39;s models" in shown
