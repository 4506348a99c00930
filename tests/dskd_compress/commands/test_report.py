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
    assert json.loads(out) == {
        "html": str(folder / "report.html"),
        "markdown": str(folder / "report.md"),
        "csv": str(folder / "report.csv"),
    }
    assert f"Report: {folder / 'report.html'}" in err
    assert "Bolts, revision 4" in (folder / "report.html").read_text(encoding="utf-8")


def test_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "none")]) == 3
    assert "no such folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / "empty")]) == 3
    assert "is not a run folder" in capsys.readouterr().err


def test_two_runs_on_one_page(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = finished.copy(tmp_path / "one"), finished.copy(tmp_path / "other")
    results = tmp_path / "results/here"
    (results / "stages").mkdir(parents=True)
    (results / "benchmark.json").write_bytes((one / "benchmark.json").read_bytes())
    out = tmp_path / "both.html"
    sources = [str(one.path), str(other.path), str(tmp_path / "results")]
    assert main(["report", *sources, "--out", str(out), "--set", "report.title=Both"]) == 0
    assert f"Report: {out}" in capsys.readouterr().out
    text = out.with_suffix(".md").read_text(encoding="utf-8")
    assert text.startswith("# Both")
    assert all(f"| {name} |" in text for name in ("one", "other", "here"))
    rows = out.with_suffix(".csv").read_text(encoding="utf-8").splitlines()
    assert {row.partition(",")[0] for row in rows[1:]} == {"one", "other", "here"}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "2 folders make one report"),
        (["--out", "page.pdf"], "the report is an HTML file"),
        (["--out", "page.html", "--set", "train.lr=1"], "report"),
    ],
)
def test_several_need_a_place(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    other = finished.copy(tmp_path / "other")
    assert main(["report", str(finished.folder.path), str(other.path), *flags]) == 2
    assert said in capsys.readouterr().err


def test_the_card_lies_in_the_run(finished: Finished) -> None:
    assert "library_name: timm" in (finished.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
