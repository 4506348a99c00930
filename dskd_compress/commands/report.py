"""`dskd-compress report`: one page of results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from dskd_compress.commands import options


def report(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders, results of bundles, or folders of these."),
    ],
    out: Annotated[
        Optional[Path],
        typer.Option(
            "--out", "-o", metavar="FILE", help="HTML file for several sources; .md and .csv go next to it."
        ),
    ] = None,
    set_: options.Overrides = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Write the report of a run or of results as HTML, Markdown and CSV.

    A report of several runs and devices names the model to ship on each, its accuracy drop, and the numbers
    behind that.

    [bold]Examples[/bold]

      dskd-compress report runs/r18
      dskd-compress report runs/r18 --set report.title='Bolts, revision 4'
      dskd-compress report results/r18/nvidia-jetson-orin-nano
      dskd-compress report runs/r18 runs/r18-kd results/r18 --out report.html
    """
    from dskd_compress.console import Output
    from dskd_compress.stages.report import report_sources

    output = Output(json_output)
    written = report_sources(sources, out, set_ or [], output)
    output.plain(f"Report: {written.html}")
    output.result({"html": str(written.html), "markdown": str(written.markdown), "csv": str(written.csv)})
