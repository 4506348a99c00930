"""`dskd-compress export`: write the bundle."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from dskd_compress.commands import options

Exporter = Annotated[
    Optional[str], typer.Option("--exporter", help="dynamo, or legacy for models that dynamo cannot take.")
]


def export(
    run: options.Run,
    exporter: Exporter = None,
    set_: options.Overrides = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Export the student to ONNX and write the bundle that goes to the device.

    [bold]Examples[/bold]

      dskd-compress export runs/r18
      dskd-compress export runs/r18 --set export.opset=18
      dskd-compress export runs/r18 --set export.input=uint8 --set export.layout=NHWC --set export.softmax=true
      dskd-compress export runs/r18 --exporter legacy
    """
    from rich.markup import escape

    from dskd_compress.console import Output
    from dskd_compress.run_folder import RunFolder

    output = Output(json_output)
    folder = RunFolder(run)
    recipe = folder.read_recipe([*options.as_overrides(export__exporter=exporter), *(set_ or [])])

    from dskd_compress.stages.export import run_export

    manifest = run_export(recipe, folder, output)
    output.print(escape(f"Bundle: {folder.bundle}\nNext: dskd-compress validate {folder.path}"))
    output.result(manifest)
