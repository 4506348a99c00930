"""The report in a real Chromium; skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dskd_export.report import build_report

CHARTS = "document.querySelectorAll('.chart').length"
DRAWN = "document.querySelectorAll('.chart svg').length"


@pytest.fixture(scope="module")
def address(full_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(build_report(full_run).html, encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 800, 360])
def test_every_chart_is_drawn_without_a_word_in_the_console(
    browser: Any, address: str, width: int, scheme: str
) -> None:
    browser.open(address, width, scheme)
    assert browser.evaluate(DRAWN) == browser.evaluate(CHARTS) == 19
    assert browser.problems() == []
    assert browser.requests() == []
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    # Marks were drawn, and inside the drawing: an empty or collapsed chart has an <svg> too.
    assert browser.evaluate(
        "[...document.querySelectorAll('.chart svg')].every(svg => svg.getBoundingClientRect().height > 100"
        " && svg.querySelectorAll('.mark-line path, .mark-rect path, .mark-symbol path').length > 0)"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_paper(browser: Any, address: str, scheme: str) -> None:
    """WCAG contrast: 4.5 for text, 3 for the lines of charts."""
    browser.open(address, 1280, scheme)
    names = ["--ink", "--muted", "--student", "--teacher", "--pass", "--fail", "--warn"]
    names += [f"--c{i}" for i in range(1, 9)]
    script = """
        (() => {
          const probe = document.body.appendChild(document.createElement("span"));
          const rgb = name => {
            probe.style.color = `var(${name})`;
            return getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map(Number);
          };
          return Object.fromEntries(NAMES.map(name => [name, rgb(name)]));
        })()
    """.replace("NAMES", str([*names, "--paper", "--warn-wash"]))
    colours = browser.evaluate(script)

    def luminance(rgb: list[float]) -> float:
        linear = [c / 3294.6 if c <= 10.31 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(colours[one]), luminance(colours[other])))
        return (high + 0.05) / (low + 0.05)

    assert (luminance(colours["--paper"]) < 0.05) == (scheme == "dark")
    for name in names:
        assert contrast(name, "--paper") >= (3.0 if name.startswith("--c") else 4.5), name
    assert contrast("--ink", "--warn-wash") >= 4.5


def test_pointing_at_a_curve_shows_its_figures(browser: Any, address: str) -> None:
    browser.open(address)
    browser.evaluate("document.getElementById('student-loss-chart').scrollIntoView({block: 'center'})")
    box = browser.evaluate(
        "(() => { const r = document.querySelector('#student-loss-chart svg').getBoundingClientRect();"
        " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
    )
    for shift in (0, 4):
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0] + shift, y=box[1])
    browser.evaluate("new Promise(done => setTimeout(done, 200))")
    shown = browser.evaluate("document.querySelector('#vg-tooltip-element.visible')?.innerText ?? ''")
    assert "step" in shown
    assert "diffusion" in shown
    assert browser.problems() == []


def test_text_of_a_user_does_not_run(browser: Any, make_run: Callable[..., Path], tmp_path: Path) -> None:
    evil = "</script><script>document.title = 'owned'</script>"
    report = build_report(make_run(classes=[evil, '<img src=x onerror="document.title=1">']), title=evil)
    path = tmp_path / "evil.html"
    path.write_text(report.html, encoding="utf-8")
    browser.open(path.as_uri())
    assert browser.evaluate("document.title").startswith("</script>")
    assert browser.evaluate(DRAWN) == browser.evaluate(CHARTS)
    assert browser.problems() == []


def test_the_policy_stops_what_is_not_ours(browser: Any, full_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "planted.html"
    page, _, end = build_report(full_run).html.rpartition("</body>")
    planted = "<script>document.title = 'owned'</script><img src='https://example.com/x.png'>"
    path.write_text(page + planted + "</body>" + end, encoding="utf-8")
    browser.open(path.as_uri())
    assert browser.evaluate("document.title") != "owned"
    assert len([text for text in browser.problems() if "Content Security Policy" in text]) >= 2


def test_print_shows_folded_tables(browser: Any, address: str) -> None:
    browser.open(address, 800, "dark", media="print")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate("document.getElementById('student-epochs').getBoundingClientRect().height") > 100


def test_links_lead_somewhere_and_the_keyboard_reaches_them(browser: Any, address: str) -> None:
    browser.open(address)
    assert browser.evaluate(
        "[...document.querySelectorAll('a')].every(a => document.getElementById(a.hash.slice(1)))"
    )
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert browser.evaluate("document.activeElement.className") == "skip"
    assert browser.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
