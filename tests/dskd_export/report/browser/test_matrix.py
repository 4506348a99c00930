"""Three precisions, two devices and four methods on one page, in a real Chromium; and what axe-core says of it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from dskd_export.report import build_comparison, build_report

MOST_BYTES = 3_000_000
# What axe-core calls serious or critical keeps somebody from reading the page.
GRAVE = ("serious", "critical")


@pytest.fixture(scope="module")
def pages(full_run: Path, matrix: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = {"one": folder / "one.html", "matrix": folder / "matrix.html"}
    made["one"].write_text(build_report(full_run).html, encoding="utf-8")
    made["matrix"].write_text(build_comparison(matrix).html, encoding="utf-8")
    return made


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_the_matrix_is_drawn_and_asks_for_nothing(
    browser: Any, pages: dict[str, Path], width: int, scheme: str
) -> None:
    browser.open(pages["matrix"].as_uri(), width, scheme)
    charts = browser.evaluate("document.querySelectorAll('.chart').length")
    assert charts == browser.evaluate("document.querySelectorAll('.chart svg').length") == 3
    assert browser.evaluate(
        "[...document.querySelectorAll('.chart svg')].every(s => s.querySelectorAll('.mark-symbol path').length)"
    )
    assert browser.problems() == []
    assert browser.requests() == []
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.evaluate(
        "[...document.querySelectorAll('a')].every(a => document.getElementById(a.hash.slice(1)))"
    )


def test_it_is_small(pages: dict[str, Path]) -> None:
    assert {name: path.stat().st_size < MOST_BYTES for name, path in pages.items()} == {
        "one": True,
        "matrix": True,
    }


@pytest.mark.parametrize("width", [1280, 800, 360])
def test_the_decision_is_on_the_first_screen(browser: Any, pages: dict[str, Path], width: int) -> None:
    for name in pages:
        browser.open(pages[name].as_uri(), width)
        for part in (".verdict", ".line", "#decision-table tbody tr"):
            bottom = browser.evaluate(f"document.querySelector('{part}').getBoundingClientRect().bottom")
            assert bottom < 900, (name, part)
        assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_no_verdict_is_cut_off_and_runners_and_tiles_are_on_one_line(browser: Any, pages: dict[str, Path]) -> None:
    for name in pages:
        browser.open(pages[name].as_uri(), 1280)
        cut = browser.evaluate(
            """[...document.querySelectorAll('table')].flatMap(table => {
              const heads = [...table.querySelectorAll('thead th')].map(th => th.innerText.trim());
              const index = heads.indexOf('verdict');
              const box = table.parentElement.getBoundingClientRect();
              if (index < 0 || !box.width) return [];
              const inside = cell => cell.getBoundingClientRect().right <= box.right + 1;
              const cells = [...table.rows].map(row => row.cells[index]);
              return cells.every(inside) ? [] : [table.id];
            })"""
        )
        assert cut == [], name
        heights = browser.evaluate(
            "[...document.querySelectorAll('#choices-table td.nowrap')].map(td => td.getClientRects().length"
            " && getComputedStyle(td).whiteSpace)"
        )
        assert set(heights) == {"nowrap"}, name
    browser.open(pages["one"].as_uri(), 1280)
    tops = browser.evaluate(
        "[...document.querySelectorAll('.facts > div')].map(d => d.getBoundingClientRect().top)"
    )
    assert len(tops) == 6
    assert len(set(tops)) == 1


def test_a_link_opens_what_is_folded(browser: Any, pages: dict[str, Path]) -> None:
    browser.open(pages["one"].as_uri(), 1280)
    fold = "document.querySelector('#diagnostics > details')"
    assert browser.evaluate(f"{fold}.open") is False
    browser.evaluate("document.querySelector('nav a[href=\"#diagnostics\"]').click()")
    browser.evaluate("new Promise(done => setTimeout(done, 200))")
    assert browser.evaluate(f"{fold}.open") is True
    assert browser.evaluate(
        f"[...{fold}.querySelectorAll('.chart svg')].every(svg => svg.getBoundingClientRect().width > 300)"
    )


@pytest.fixture(scope="module")
def rules() -> str:
    """axe-core as its package carries it."""
    spec = importlib.util.find_spec("axe_core_python")
    if spec is None or spec.origin is None:
        pytest.skip("axe-core-python is not installed")
    return (Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8")


def faults(browser: Any, rules: str) -> list[tuple[str, str, list[str]]]:
    """Rule, impact and places of each serious or critical fault."""
    browser.call("Runtime.evaluate", expression=rules)
    found = json.loads(browser.evaluate("axe.run(document).then(r => JSON.stringify(r.violations))"))
    return [
        (fault["id"], fault["impact"], [node["html"][:200] for node in fault["nodes"][:3]])
        for fault in found
        if fault["impact"] in GRAVE
    ]


@pytest.mark.parametrize(
    ("page", "scheme"),
    [
        ("one", "light"),
        ("matrix", "dark"),
        pytest.param("one", "dark", marks=pytest.mark.slow),
        pytest.param("matrix", "light", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing_grave(browser: Any, pages: dict[str, Path], rules: str, page: str, scheme: str) -> None:
    browser.open(pages[page].as_uri(), 1280, scheme)
    assert faults(browser, rules) == []


def test_axe_finds_a_planted_fault(browser: Any, pages: dict[str, Path], rules: str, tmp_path: Path) -> None:
    path = tmp_path / "faulty.html"
    text = pages["matrix"].read_text(encoding="utf-8")
    path.write_text(text.replace("--muted: #59626d", "--muted: #c9c9c9"), encoding="utf-8")
    browser.open(path.as_uri())
    assert [rule for rule, _, _ in faults(browser, rules)] == ["color-contrast"]
