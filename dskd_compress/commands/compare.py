"""`dskd-compress compare`: methods side by side under one budget."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Optional

import typer

from dskd_compress.commands import options, settings
from dskd_compress.names import METHOD_NAMES

Methods = Annotated[
    str,
    typer.Option("--methods", help=f"Methods, with commas, of {', '.join(METHOD_NAMES)}."),
]
Variants = Annotated[
    Optional[list[str]],
    typer.Option(
        "--variant",
        metavar="'LABEL=METHOD KEY=VALUE ...'",
        help="A method with other settings, for example 'map=dskd tap=map'; repeatable.",
    ),
]
Seeds = Annotated[str, typer.Option("--seeds", help="Seeds, with commas.")]
Against = Annotated[
    Optional[str], typer.Option("--against", help="Method that the others are compared with. Default: the last.")
]


class Epoch(str, Enum):
    """Whose accuracy is compared."""

    last = "last"
    best = "best"


@settings.takes(settings.DATA, settings.DEVICE, settings.AMP)
def compare(
    *,
    recipe: options.RecipeName = None,
    out: options.Out = None,
    methods: Methods = "",
    variant: Variants = None,
    seeds: Seeds = "0,1,2",
    against: Against = None,
    epoch: Annotated[Epoch, typer.Option("--epoch", help="Accuracy of the last or the best epoch.")] = Epoch.last,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Trainings at the same time.")] = 1,
    changes: list[str],
    json_output: options.JsonFlag = False,
) -> None:
    """Train methods with the same steps, data order and initial student, and write one table of the results.

    The table has means over seeds with 95 % intervals, differences paired by seed, seconds, images/s and peak
    memory. Every run has its own folder; the same command resumes what is left. A teacher that the recipe trains
    is trained once, with seed 0; that of a run folder is taken as it is.

    [bold]Examples[/bold]

      dskd-compress compare recipe.yaml --methods none,kd,dkd,dist,diffkd,lshfm,dskd --seeds 0,1,2
      dskd-compress compare recipe.yaml --variant 'map=dskd tap=map' --variant 'vector=dskd tap=vector'
    """
    from pathlib import Path

    from dskd_compress.comparison import format_rows, list_headings, list_notes
    from dskd_compress.console import Output
    from dskd_compress.run_folder import RunFolder, refuse_image_folder, resolve_run
    from dskd_compress.stages.compare import parse_seeds, parse_variants, plan_runs, run_comparison

    output = Output(json_output)
    loaded, _ = resolve_run(recipe, out, changes)
    target = out if out is not None else Path("runs") / f"{loaded.name}-compared"
    refuse_image_folder(loaded, target)
    runs = plan_runs(
        lambda more: resolve_run(recipe, None, [*changes, *more])[0],
        parse_variants(methods, variant or [], against),
        parse_seeds(seeds),
        target,
    )
    reference = against or runs[-1].label
    source = RunFolder(Path(recipe)) if recipe is not None and Path(recipe).is_dir() else None
    document = run_comparison(runs, target, output, epoch=epoch.value, jobs=jobs, against=reference, source=source)
    output.table("Comparison", list_headings(reference), format_rows(document, reference))
    for note in list_notes(document, reference):
        output.plain(note)
    output.plain(f"Table: {target / 'compare.md'}")
    output.result(document)
