"""`dskd-compress compare`: methods side by side under one budget."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Optional

import typer

from dskd_compress.commands import options


class Epoch(str, Enum):
    """Whose accuracy is compared."""

    last = "last"
    best = "best"


def compare(
    recipe: options.RecipeName = None,
    out: options.Out = None,
    methods: Annotated[
        str, typer.Option("--methods", help="Methods, with commas; each with the recipe's or its own defaults.")
    ] = "",
    variant: Annotated[
        Optional[list[str]],
        typer.Option(
            "--variant",
            metavar="'LABEL=METHOD KEY=VALUE ...'",
            help="A method with settings of its own, for example 'map=dskd tap=map'; repeatable.",
        ),
    ] = None,
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds, with commas.")] = "0,1,2",
    against: Annotated[
        Optional[str],
        typer.Option("--against", help="Method that the others are held against. Default: the last."),
    ] = None,
    epoch: Annotated[
        Epoch, typer.Option("--epoch", help="Accuracy of the last or of the best epoch.")
    ] = Epoch.last,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Trainings side by side.")] = 1,
    data: options.Data = None,
    device: options.Device = None,
    amp: options.Amp = None,
    set_: options.Overrides = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Train methods under the same steps, data order and initial student, and write one table.

    Means over seeds with 95 % intervals, differences paired by seed, seconds, images a second
    and peak memory. Every run has its own folder and is gone on with when the same command is
    started again. A teacher that the recipe trains is trained once, with seed 0.

    [bold]Examples[/bold]

      dskd-compress compare recipe.yaml --methods none,kd,dkd,dist,diffkd,lshfm,dskd --seeds 0,1,2
      dskd-compress compare recipe.yaml --variant 'map=dskd tap=map' --variant 'vector=dskd tap=vector'
    """
    from pathlib import Path

    from dskd_compress.comparison import headings, table_rows
    from dskd_compress.console import Output
    from dskd_compress.stages.compare import Variant, plan_runs, run_comparison
    from dskd_export.errors import UsageError

    output = Output(json_output)
    flags = options.as_overrides(data__source=data, train__device=device, train__precision=amp)
    loaded, _ = options.resolve_run(recipe, out, flags, set_)
    target = out if out is not None else Path("runs") / f"{loaded.name}-compared"
    try:
        numbers = [int(word) for word in seeds.split(",")]
    except ValueError as error:
        raise UsageError(
            f"--seeds: '{seeds}' is no list of numbers.", "Write for example --seeds 0,1,2."
        ) from error
    named = [Variant.of_method(word.strip()) for word in methods.split(",") if word.strip()]
    variants = [*named, *(Variant.parse(text) for text in variant or [])]
    labels = [item.label for item in variants]
    if against is not None and against not in labels:
        raise UsageError(f"--against: '{against}' is none of the methods.", f"Choose one of: {', '.join(labels)}.")
    runs = plan_runs(
        lambda changes: options.resolve_run(recipe, None, flags, [*(set_ or []), *changes])[0],
        variants,
        numbers,
        target,
    )
    reference = against or runs[-1].label
    document = run_comparison(runs, target, output, epoch=epoch.value, jobs=jobs, against=reference)
    output.table("Comparison", headings(reference), table_rows(document, reference))
    output.print(f"Table: {target / 'compare.md'}")
    output.result(document)
