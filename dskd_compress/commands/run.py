"""`dskd-compress run`: all stages of a recipe."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from dskd_compress.commands import options, settings
from dskd_compress.names import STAGE_NAMES

if TYPE_CHECKING:
    from dskd_compress.config import Recipe
    from dskd_compress.recipe import FlagOverride
    from dskd_compress.run_folder import RunFolder

_STAGES = ", ".join(STAGE_NAMES)
_OF_TRAINING = ("train.device", "train.precision")  # hold for the training of teacher and student
_OF_MEASURING = ("benchmark.runners", "benchmark.providers", "benchmark.allow_cpu")  # also hold for validate
_MORE = "  Images, models and this machine are checked after that: more faults may follow."

First = Annotated[Optional[str], typer.Option("--from", metavar="STAGE", help=f"First stage to run: {_STAGES}.")]
Last = Annotated[Optional[str], typer.Option("--to", metavar="STAGE", help="Last stage to run.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check all requirements and print the plan; write nothing.")
]


@settings.takes(
    *settings.MODELS_AND_DATA,
    settings.TARGET,
    settings.PRECISION,
    settings.EPOCHS,
    *settings.hide(
        settings.METHOD,
        settings.DEVICE,
        settings.STUDENT_CHECKPOINT,
        settings.TEACHER_ACCURACY,
        settings.BATCH_SIZE,
        settings.LR,
        settings.INPUT_SIZE,
        settings.AMP,
        settings.SEED,
        settings.EXPORTER,
        settings.RUNNER,
        settings.PROVIDER,
        settings.ALLOW_CPU,
        settings.BATCH,
        settings.MAX_IMAGES,
        settings.PROFILE,
    ),
)
def run(
    *,
    recipe: options.RecipeName = None,
    out: options.Out = None,
    first: First = None,
    last: Last = None,
    dry_run: DryRun = False,
    changes: list[str],
    accept_unproven: options.AcceptUnproven = False,
    json_output: options.JsonFlag = False,
) -> None:
    """Run all stages of a recipe up to the report: skip what is up to date, print why the rest runs.

    Without a recipe, --teacher, --student and --data make one; without these, the demo on handwritten digits runs.
    Before any work it reports everything that is missing, with the command for each.

    Also accepted, as in distill, export, validate and benchmark: --method, --device, --amp, --batch-size, --lr,
    --input-size, --student-checkpoint, --teacher-accuracy, --seed, --exporter, --runner, --provider, --allow-cpu,
    --batch, --max-images and --profile.

    The report is written whatever the verdict. The exit code is the worst of validate and benchmark: 5 where
    one fails, 6 where one is not shown to pass.

    [bold]Examples[/bold]

      dskd-compress run --out runs/demo
      dskd-compress run recipe.yaml --out runs/bolts --from export
      dskd-compress run --teacher resnet50 --teacher-checkpoint my.safetensors --student resnet18 --data photos
      dskd-compress run recipe.yaml --target jetson-orin --dry-run
    """
    from dskd_compress.console import Output
    from dskd_compress.precisions import settle_precisions
    from dskd_compress.show.validation import refuse_run
    from dskd_compress.stages.pipeline import plan_pipeline, print_outcomes, run_pipeline
    from dskd_export.errors import RecipeError

    output = Output(json_output)
    try:
        loaded, folder = _resolve(recipe, out, changes)
    except RecipeError as error:  # without a recipe nothing else can be checked
        error.hint = "\n".join(filter(None, (error.hint, _MORE)))
        raise
    loaded, said = settle_precisions(loaded, folder, changes)
    for sentence in said:
        output.plain(sentence)
    if dry_run:
        plan_pipeline(loaded, folder, output, first=first, last=last)
        return
    outcomes = list(run_pipeline(loaded, folder, output, first=first, last=last))
    again = shlex.join(["dskd-compress", "run", str(folder.path)])
    refuse_run(*print_outcomes(outcomes, folder, output), accept_unproven, again)


def _resolve(recipe: str | None, out: Path | None, changes: list[str]) -> tuple[Recipe, RunFolder]:
    """Find the recipe; a flag that several stages have in common holds for all of them."""
    from dskd_compress.recipe import DEFAULT_RECIPE
    from dskd_compress.run_folder import names_a_run, resolve_run

    flags = settings.select_flags(changes)
    rest = changes[len(flags) :]  # those of --set, which win
    flags += _copy_for_validate(flags)
    # One flag that names a model or the images calls for the others: never run another one than was meant.
    named = any(flag.startswith(("teacher.", "student.", "data.source")) for flag in flags)
    default = None if named or names_a_run(changes) else DEFAULT_RECIPE
    loaded, folder = resolve_run(recipe, out, [*flags, *rest], default=default)
    if loaded.teacher.train is not None:
        same = [_copy_flag(flag, f"teacher.{_key(flag)}") for flag in flags if _key(flag) in _OF_TRAINING]
        loaded, folder = resolve_run(recipe, out, [*flags, *same, *rest], default=default)
    return loaded, folder


def _key(flag: FlagOverride) -> str:
    return flag.partition("=")[0]


def _copy_flag(flag: FlagOverride, key: str) -> FlagOverride:
    from dskd_compress.recipe import FlagOverride

    return FlagOverride(f"{key}={flag.partition('=')[2]}", flag.flag)


def _copy_for_validate(flags: Sequence[FlagOverride]) -> list[FlagOverride]:
    """Give validate the runners and providers of benchmark, but for torch, which is its reference."""
    from dskd_compress.recipe import FlagOverride

    copied = []
    for flag in flags:
        if _key(flag) not in _OF_MEASURING:
            continue
        values = [value for value in json.loads(flag.partition("=")[2]) if value != "torch"]
        if values:
            key = _key(flag).replace("benchmark.", "validate.")
            copied.append(FlagOverride.of_value(key, values, flag.flag))
    return copied
