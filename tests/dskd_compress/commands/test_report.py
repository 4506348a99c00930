from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_support import Finished

from dskd_compress.cli import main

pytestmark = pytest.mark.usefixtures("no_document_yet")


def test_it_says_where_the_page_is(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished.copy(tmp_path / "run")
    assert main(["report", str(folder.path), "--set", "report.title='Bolts, revision 4'", "--json"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert json.loads(out) == {"html": str(folder / "report.html"), "markdown": str(folder / "report.md")}
    assert f"Report: {folder / 'report.html'}" in err
    assert "Bolts, revision 4" in (folder / "report.html").read_text(encoding="utf-8")


def test_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "none")]) == 3
    assert "is not a run folder" in capsys.readouterr().err
