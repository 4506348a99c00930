"""Render blocks to HTML and Markdown. The only file that uses the templates.

The HTML is one file: style, scripts and chart data are inside. Its Content-Security-Policy names the
sha256 of each script and allows nothing else, so text that found a way into the page could not run,
and nothing can be requested.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dskd_export.report.blocks import Gallery, Picture, Section
from dskd_export.report.decision import Decision
from dskd_export.report.next_steps import NextStep
from dskd_export.report.tables import Cell, Table

SCRIPTS = ("vega.min.js", "vega-lite.min.js", "vega-embed.min.js")

# Shared by all charts. Colours are the page's CSS variables; `aria` is off because the figure around a
# chart is labelled, and a screen reader should not read out every tick.
CHART_CONFIG: dict[str, Any] = {
    "background": None,
    "aria": False,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "titleFontWeight": "normal",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titlePadding": 8,
        "gridColor": "var(--rule)",
        "domainColor": "var(--rule-strong)",
        "tickColor": "var(--rule-strong)",
        "tickSize": 4,
        "labelOverlap": True,
        "labelLimit": 170,
    },
    "axisX": {"grid": False},
    "axisY": {"tickCount": 5},
}


@dataclass(frozen=True)
class Page:
    """All that a rendering needs."""

    title: str
    subtitle: str
    decision: Decision
    table: Table
    steps: Sequence[NextStep]
    warnings: Sequence[str]
    sections: Sequence[Section]


def html_from_page(page: Page) -> str:
    """Render the self-contained HTML page."""
    scripts = [_script(f"vendor/{name}") for name in SCRIPTS] + [_script("templates/report.js")]
    charts = {
        figure.id: figure.spec
        for section in page.sections
        for block in section.blocks
        if isinstance(block, Gallery)
        for figure in block.figures
    }
    return environment().get_template("report.html.j2").render(
        page=page,
        css=Markup(_read("templates/report.css")),
        scripts=[Markup(script) for script in scripts],
        script_sources=" ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
        ),
        charts={"config": CHART_CONFIG, "specs": charts},
    )  # fmt: skip


def markdown_from_page(page: Page) -> str:
    """Render the same facts as Markdown tables, without charts."""
    text = environment().get_template("report.md.j2").render(page=page)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def escape_markdown(text: str) -> str:
    """Escape plain text for Markdown, on one line and inside a table cell."""
    text = " ".join(text.split())
    text = re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code_markdown(text: str) -> str:
    """Make a code span for a table cell; text with back ticks is escaped instead."""
    text = " ".join(text.split())
    if not text or "`" in text or "|" in text:
        return escape_markdown(text)
    return f"`{text}`"


def cell_markdown(cell: Cell) -> str:
    """Render a table cell."""
    text = code_markdown(cell.text) if cell.kind == "code" else escape_markdown(cell.text)
    return f"**{text}**" if cell.kind in ("pass", "fail", "unproven", "stale") else text


def fence(lines: Sequence[str]) -> str:
    """Make a fence longer than any run of back ticks inside."""
    longest = max((len(run) for line in lines for run in re.findall(r"`+", line)), default=0)
    return "`" * max(3, longest + 1)


def data_uri(picture: Picture) -> str:
    """Encode a picture into the page."""
    return f"data:{picture.media};base64,{base64.b64encode(picture.data).decode()}"


def environment() -> Environment:
    """Load the templates, with the filters that escape for Markdown; HTML templates escape automatically."""
    templates = Environment(
        loader=PackageLoader("dskd_export.report", "templates"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.tests["block"] = lambda block, name: type(block).__name__ == name
    templates.filters.update(
        md=escape_markdown, md_code=code_markdown, md_cell=cell_markdown, md_fence=fence, data_uri=data_uri
    )
    return templates


def _read(name: str) -> str:
    return resources.files("dskd_export.report").joinpath(name).read_text(encoding="utf-8")


def _script(name: str) -> str:
    """Read a script of this package, without the pointer to a source map that is not in the page."""
    text = re.sub(r"^//# sourceMappingURL=.*$", "", _read(name), flags=re.MULTILINE).strip() + "\n"
    if "</script" in text.lower():
        raise ValueError(f"{name} would end the script element that it stands in")
    return text
