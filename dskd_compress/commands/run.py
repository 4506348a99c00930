"""`dskd-compress run`: all stages of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from dskd_compress.commands import options, settings
from dskd_compress.names import STAGE_NAMES

if TYPE_CHECKING:
    from dskd_compress.config import Recipe
    from dskd_compress.run_folder import RunFolder

_STAGES = ", ".join(STAGE_NAMES)
_SHARED = ("train.device=", "train.precision=")  # of the training of teacher and student

First = Annotated[Optional[str], typer.Option("--from", metavar="STAGE", help=f"First stage to run: {_STAGES}.")]
Last = Annotated[Optional[str], typer.Option("--to", metavar="STAGE", help="Last stage to run.")]


@settings.takes(
    *settings.MODELS_AND_DATA,
    settings.METHOD,
    settings.EPOCHS,
    settings.DEVICE,
    settings.PRECISION,
    *settings.hide(
        settings.STUDENT_CHECKPOINT,
        settings.TEACHER_ACCURACY,
        settings.BATCH_SIZE,
        settings.LR,
        settings.INPUT_SIZE,
        settings.AMP,
        settings.TARGET,
        settings.SEED,
    ),
)
def run(
    *,
    recipe: options.RecipeName = None,
    out: options.Out = None,
    first: First = None,
    last: Last = None,
    changes: list[str],
    accept_unproven: options.AcceptUnproven = False,
    json_output: options.JsonFlag = False,
) -> None:
    """Run all stages of a recipe up to the report: skip what is up to date, print why the rest runs.

    Without a recipe, --teacher, --student and --data make one; without these, the demo on handwritten digits runs.

    Also accepted: all flags of distill (--amp, --lr, --seed, ...) and --target of export.

    The report is written whatever the verdict. The exit code is the worst of validate and benchmark: 5 where
    one fails, 6 where one is not shown to pass.

    [bold]Examples[/bold]

      dskd-compress run --out runs/demo
      dskd-compress run recipe.yaml --out runs/bolts --from export
      dskd-compress run --teacher resnet50 --teacher-checkpoint my.safetensors --student resnet18 --data photos
      dskd-compress run recipe.yaml --to validate --device cuda --amp bf16 --precision fp16,int8
    """
    from dskd_compress.console import Output
    from dskd_compress.precisions import keep_bundled_precisions
    from dskd_compress.show.validation import refuse_run
    from dskd_compress.stages.pipeline import print_outcomes, run_pipeline

    output = Output(json_output)
    loaded, folder = _resolve(recipe, out, changes)
    loaded, kept = keep_bundled_precisions(loaded, folder, changes)
    options.say_kept(kept, output)
    outcomes = list(run_pipeline(loaded, folder, output, first=first, last=last))
    refuse_run(*print_outcomes(outcomes, folder, output), accept_unproven)


def _resolve(recipe: str | None, out: Path | None, changes: list[str]) -> tuple[Recipe, RunFolder]:
    """Find the recipe; flags for the student's training hold for that of a teacher as well."""
    from dskd_compress.recipe import DEFAULT_RECIPE, FlagOverride
    from dskd_compress.run_folder import names_a_run, resolve_run

    flags = settings.select_flags(changes)
    # One flag that names a model or the images calls for the others: never run another one than was meant.
    named = any(flag.startswith(("teacher.", "student.", "data.source")) for flag in flags)
    default = None if named or names_a_run(changes) else DEFAULT_RECIPE
    loaded, folder = resolve_run(recipe, out, changes, default=default)
    if loaded.teacher.train is not None:
        same = [FlagOverride(f"teacher.{flag}", flag.flag) for flag in flags if flag.startswith(_SHARED)]
        loaded, folder = resolve_run(recipe, out, [*flags, *same, *changes[len(flags) :]], default=default)
    return loaded, folder
