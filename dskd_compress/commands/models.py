"""`dskd-compress models`: what timm has, and how DSKD reads it."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from dskd_compress.commands import options

app = typer.Typer(no_args_is_help=True, help="List timm models and look at their taps.")


@app.command("list")
def list_models(
    pattern: Annotated[
        Optional[str], typer.Argument(help="Part of a name, or a pattern such as 'resnet*'.")
    ] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Only models with pretrained weights.")] = False,
    json_output: options.JsonFlag = False,
) -> None:
    """List the architectures of the installed timm.

    [bold]Examples[/bold]

      dskd-compress models list mobilenet
      dskd-compress models list 'resnet*' --pretrained
    """
    from dskd_compress.console import Output
    from dskd_compress.timm_import import import_timm
    from dskd_export.errors import UsageError

    output = Output(json_output)
    wanted = "" if pattern is None else pattern if "*" in pattern else f"*{pattern}*"
    names = import_timm().list_models(wanted, pretrained=pretrained)
    if not names:
        raise UsageError(f"No model matches '{pattern}'.", "See: dskd-compress models list")
    for name in names:
        output.print(name)
    output.result({"models": names})


@app.command("inspect")
def inspect_model(
    name: Annotated[str, typer.Argument(help="timm architecture.")],
    input_size: options.InputSize = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Show a model's size, input and taps. Weights are random: nothing is downloaded.

    [bold]Examples[/bold]

      dskd-compress models inspect swin_tiny_patch4_window7_224
      dskd-compress models inspect resnet18 --input-size 64 --json
    """
    from dskd_compress.console import Output
    from dskd_compress.stages.inspect import inspect_architecture

    output = Output(json_output)
    found = inspect_architecture(name, input_size)
    rows = [
        ["parameters", f"{found.model.parameters:,}"],
        ["multiply-accumulates", f"{found.model.macs:,}" if found.model.macs else "not countable"],
        ["weights", f"{found.model.size_mb:.1f} MB"],
        ["input", "x".join(map(str, found.model.input_size))],
    ]
    for kind, tap in found.taps.items():
        grid = f", grid {tap.grid[0]}x{tap.grid[1]}" if tap.grid else ""
        rows.append(
            [f"{kind} tap", f"{tap.channels} channels{grid}, {tap.layout}; as a teacher: {found.heads[kind]}"]
        )
    rows += [[f"{kind} tap", f"none: {reason}"] for kind, reason in found.refused.items()]
    output.table(found.model.name, ["", ""], rows)
    output.result(found)
