"""`dskd-compress run`: all stages of a recipe."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from dskd_compress.commands import options


def run(
    recipe: options.RecipeName = None,
    out: options.Out = None,
    first: Annotated[Optional[str], typer.Option("--from", metavar="STAGE", help="First stage to run.")] = None,
    last: Annotated[Optional[str], typer.Option("--to", metavar="STAGE", help="Last stage to run.")] = None,
    data: options.Data = None,
    device: options.Device = None,
    precision: options.Precision = None,
    seed: options.Seed = None,
    set_: options.Overrides = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Train, distil, export, validate, benchmark and report; skip what is unchanged and say why not.

    Without a recipe: the embedded one on handwritten digits.

    Stages: train, distill, export, validate, benchmark, report.

    Exit code 5 when the validation fails; the report is written all the same.

    [bold]Examples[/bold]

      dskd-compress run --out runs/demo
      dskd-compress run recipe.yaml --out runs/bolts --from export
      dskd-compress run recipe.yaml --to validate --device cuda --precision bf16
    """
    from rich.markup import escape

    from dskd_compress.console import Output
    from dskd_compress.recipe import DEFAULT_RECIPE

    output = Output(json_output)
    flags = options.as_overrides(data__source=data, train__device=device, train__precision=precision, seed=seed)
    loaded, folder = options.resolve_run(recipe, out, flags, set_, default=DEFAULT_RECIPE)
    if loaded.teacher.train is not None:
        more = options.as_overrides(teacher__train__device=device, teacher__train__precision=precision)
        loaded, folder = options.resolve_run(recipe, out, [*flags, *more], set_, default=DEFAULT_RECIPE)

    from dskd_compress.stages.judge import print_validation, refuse_failed
    from dskd_compress.stages.pipeline import run_pipeline, validation_of

    outcomes = list(run_pipeline(loaded, folder, output, first=first, last=last))
    report = folder / "report.html"
    validated = any(outcome.stage == "validate" for outcome in outcomes)
    document = validation_of(folder) if validated else None
    if document is not None:
        print_validation(document, output)
    if report.exists():
        output.print(escape(f"Report: {report}"))
    output.result(
        {
            "run": str(folder.path),
            "stages": [vars(outcome) for outcome in outcomes],
            "passed": None if document is None else document.passed,
            "report": str(report) if report.exists() else None,
        }
    )
    if document is not None:
        refuse_failed(document)
