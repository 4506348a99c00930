"""`dskd-compress models`: what timm has, and how DSKD reads it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from dskd_compress.commands import options

if TYPE_CHECKING:
    from dskd_compress.catalogue.suggest import Suggestions
    from dskd_compress.console import Output

app = typer.Typer(
    no_args_is_help=True, help="List timm models, inspect their taps, and suggest students for a teacher."
)


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
    """Show the size, input and taps of a model, with random weights: nothing is downloaded.

    [bold]Examples[/bold]

      dskd-compress models inspect swin_tiny_patch4_window7_224
      dskd-compress models inspect resnet18 --input-size 64 --json
    """
    from dskd_compress.catalogue.inspect import inspect_architecture
    from dskd_compress.console import Output

    output = Output(json_output)
    found = inspect_architecture(name, input_size)
    rows = [
        ["class", f"{found.model_class} ({found.kind})"],
        ["parameters", f"{found.model.parameters:,}"],
        ["multiply-accumulates", f"{found.model.macs:,}" if found.model.macs else "not countable"],
        ["weights", f"{found.model.size_mb:.1f} MB"],
        ["input", f"{'x'.join(map(str, found.model.input_size))}, {'fixed' if found.fixed_input else 'any size'}"],
        ["normalisation", f"mean {_numbers(found.mean)}, std {_numbers(found.std)}"],
        ["resize", f"{found.interpolation}, crop {found.crop_pct:g}"],
    ]
    for kind, tap in found.taps.items():
        grid = f", grid {tap.grid[0]}x{tap.grid[1]}" if tap.grid else ""
        rows.append(
            [f"{kind} tap", f"{tap.channels} channels{grid}, {tap.layout}; as a teacher: {found.heads[kind]}"]
        )
    rows += [[f"{kind} tap", f"none: {reason}"] for kind, reason in found.refused.items()]
    classes = f"{found.own_classes} classes" if found.own_classes else "no classifier"
    rows.append(["pretrained", f"timm has weights, with {classes}" if found.pretrained else "timm has no weights"])
    rows += [["as a student", found.as_student], ["as a teacher", found.as_teacher]]
    output.table(found.model.name, ["", ""], rows)
    output.result(found)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)


class Kind(str, Enum):
    """What a student may be built of."""

    cnn = "cnn"
    vit = "vit"
    any = "any"


@app.command("suggest")
def suggest(
    teacher: Annotated[str, typer.Option("--teacher", help="timm architecture of the teacher.")],
    max_parameters: Annotated[
        Optional[float],
        typer.Option("--max-parameters", min=0.001, help="In millions. Default: a quarter."),
    ] = None,
    max_macs: Annotated[
        Optional[float],
        typer.Option("--max-macs", min=0.001, help="In millions per image. Default: a quarter."),
    ] = None,
    input_size: options.InputSize = None,
    kind: Annotated[Kind, typer.Option("--kind", help="vit: with attention or tokens; cnn: neither.")] = Kind.any,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Only students that timm has pretrained weights for.")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure their latency on this CPU at batch 1; fastest first.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Number of students to show.")] = 10,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="List the other models and why they were left out.")
    ] = False,
    json_output: options.JsonFlag = False,
) -> None:
    """Suggest students for a teacher: of each timm family the largest that fits, closest to the budget first.

    Where nothing fits, it lists the nearest and by how much they exceed the budget (exit code 0, "fits": false).
    Parameters and multiply-accumulates include a classifier of 1000 classes. Nothing is downloaded.

    [bold]Examples[/bold]

      dskd-compress models suggest --teacher resnet50
      dskd-compress models suggest --teacher vit_base_patch16_224 --max-parameters 6 --max-macs 1000 --kind cnn
      dskd-compress models suggest --teacher resnet50 --max-macs 300 --pretrained --measure --limit 5
    """
    from dskd_compress.catalogue.suggest import Budget, suggest_students
    from dskd_compress.console import Output

    output = Output(json_output)
    budget = Budget(
        None if max_parameters is None else int(max_parameters * 1e6),
        None if max_macs is None else int(max_macs * 1e6),
        input_size,
        kind.value,
        pretrained,
    )
    found = suggest_students(teacher, budget, limit=limit, measure=measure, output=output)
    _print_students(found, measure, output)
    if verbose:
        output.table("Left out", ["model", "why"], [list(item) for item in found.left_out.items()])
    output.result(found)


def _print_students(found: Suggestions, measured: bool, output: Output) -> None:
    columns = ["student", "kind", "parameters, M", "MACs, M", "input", "of the teacher's"]
    rows = []
    if not found.fits:
        columns.append("over the budget")
    for student in found.students:
        share = f"{student.parameters_share:.1%} parameters, {student.macs_share:.1%} MACs"
        row = [student.name, student.kind, f"{student.parameters / 1e6:.2f}", f"{student.macs / 1e6:,.0f}"]
        row += ["x".join(map(str, student.input_size)), share]
        if not found.fits:
            over = ((student.over_parameters, "parameters"), (student.over_macs, "MACs"))
            row.append(", ".join(f"+{value:.0%} {what}" for value, what in over if value > 0))
        if student.latency is not None:
            row.append(f"{student.latency.p50_ms:.2f}")
        rows.append(row)
    title = "Students" if found.fits else "Nothing fits; the nearest students"
    output.table(
        f"{title} for {found.teacher} ({found.teacher_parameters / 1e6:.1f} M parameters, "
        f"{found.teacher_macs / 1e6:,.0f} M MACs): at most {found.max_parameters / 1e6:.2f} M parameters and "
        f"{found.max_macs / 1e6:,.0f} M MACs",
        [*columns, "p50, ms"] if measured else columns,
        rows,
    )
