"""`dskd-compress report`: one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dskd_compress.commands import options


def report(
    source: Annotated[
        Path, typer.Argument(metavar="RUN", help="Run folder, or the results of a bundle on a device.")
    ],
    set_: options.Overrides = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Put everything that a run folder, or a folder of results, holds on one HTML page, and in Markdown.

    [bold]Examples[/bold]

      dskd-compress report runs/r18
      dskd-compress report runs/r18 --set report.title='Bolts, revision 4'
      dskd-compress report results/r18/nvidia-jetson-orin-nano
    """
    from rich.markup import escape

    from dskd_compress.console import Output
    from dskd_compress.run_folder import RunFolder

    output = Output(json_output)
    if not (source / "recipe.yaml").is_file() and (source / "stages").is_dir():
        from dskd_compress.stages.on_device import report_results

        path = report_results(source, set_ or [])
    else:
        folder = RunFolder(source)
        recipe = folder.read_recipe(set_ or [])

        from dskd_compress.stages.report import run_report

        path = run_report(recipe, folder, output)
    output.print(escape(f"Report: {path}"))
    output.result({"html": str(path), "markdown": str(path.with_suffix(".md"))})
