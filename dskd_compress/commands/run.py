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
    accept_unproven: options.AcceptUnproven = False,
    set_: options.Overrides = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Train, distil, export, validate, benchmark and report; skip what is unchanged and say why not.

    Without a recipe: the embedded one on handwritten digits.

    Stages: train, distill, export, validate, benchmark, report.

    Whatever the verdict, the report is written. The exit code is the worst of validate and benchmark: 5 where
    one fails, 6 where one is not shown to pass.

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

    from dskd_compress.stages.judge import decision_in, print_validation, refuse_run
    from dskd_compress.stages.pipeline import benchmark_of, run_pipeline, validation_of
    from dskd_compress.stages.show_benchmark import print_judgements

    outcomes = list(run_pipeline(loaded, folder, output, first=first, last=last))
    report = folder / "report.html"
    stages = {outcome.stage for outcome in outcomes}
    document = validation_of(folder) if "validate" in stages else None
    timed = benchmark_of(folder) if "benchmark" in stages else None
    decision = decision_in(folder.path)
    if timed is not None:
        print_judgements("Budget", timed.judgements, output)
    if document is not None:
        print_validation(document, decision, output)
    if report.exists():
        output.print(escape(f"Report: {report}"))
    output.result(
        {
            "run": str(folder.path),
            "stages": [vars(outcome) for outcome in outcomes],
            "verdict": None if document is None else document.verdict,
            "passed": None if document is None else document.passed,
            "ship": None if document is None or decision.verdict != "PASS" else vars(decision.model),
            "report": str(report) if report.exists() else None,
        }
    )
    refuse_run(document, timed, accept_unproven)
