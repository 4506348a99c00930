"""`dskd-compress report`: one page."""

from __future__ import annotations

from dskd_compress.commands import options


def report(run: options.Run, set_: options.Overrides = None, json_output: options.JsonFlag = False) -> None:
    """Put everything that a run folder holds on one HTML page, and in Markdown.

    [bold]Examples[/bold]

      dskd-compress report runs/r18
      dskd-compress report runs/r18 --set report.title='Bolts, revision 4'
    """
    from rich.markup import escape

    from dskd_compress.console import Output
    from dskd_compress.run_folder import RunFolder

    output = Output(json_output)
    folder = RunFolder(run)
    recipe = folder.read_recipe(set_ or [])

    from dskd_compress.stages.report import run_report

    path = run_report(recipe, folder, output)
    output.print(escape(f"Report: {path}"))
    output.result({"html": str(path), "markdown": str(path.with_suffix(".md"))})
