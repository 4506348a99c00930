"""`dskd-compress dashboard`: a running training in the terminal."""

from __future__ import annotations

import shlex
from typing import Annotated, Optional

import typer

from dskd_compress.commands import options
from dskd_compress.names import DISTILL, TRAIN, TUNE, join_words


def dashboard(
    run: options.Run,
    stage: Annotated[
        Optional[str],
        typer.Option("--stage", help=f"{join_words((TRAIN, DISTILL, TUNE))}. Default: the one that wrote last."),
    ] = None,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Refresh interval in seconds.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show it once and exit.")] = False,
    json_output: options.JsonFlag = False,
) -> None:
    """Follow a training: curves, time left, last validation, faults, load. Ends when the training does.

    Prints the command that resumes a training whose process is gone.

    It reads the training's log and changes nothing: start it in another terminal, as often as you like.
    Ctrl-C ends the dashboard, not the training. Load is that of this machine. Without a terminal, and with
    --json, it is shown once.

    [bold]Examples[/bold]

      dskd-compress dashboard runs/r18
      dskd-compress dashboard runs/r18 --stage train --once
    """
    from dskd_compress.console import Output
    from dskd_compress.dashboard.view import describe_stop
    from dskd_compress.dashboard.watch import find_training, watch
    from dskd_compress.run_folder import RunFolder

    output = Output(json_output)
    folder = RunFolder(run)
    recipe = folder.read_recipe([])
    training = find_training(folder, recipe, stage)
    title = f"{run} · {training.stage} · {recipe.teacher.name} → {recipe.student.name}"
    once = once or json_output or not output.is_live
    course, state = watch(training, title, output.console, every_s=every, once=once)
    resume = f"dskd-compress {training.stage} {shlex.quote(str(run))}" if state == "stopped" else None
    if resume is not None:
        output.plain(f"{describe_stop(course).capitalize()}. Resume with: {resume}")
    newest = course.epochs[-1] if course.epochs else None
    output.result(
        {
            "run": str(run),
            "stage": training.stage,
            "ended": state == "ended",
            "state": state,
            "resume": resume,
            "step": course.step,
            "steps": course.total_steps,
            "epochs_done": course.epoch,
            "epochs": training.epochs,
            "seconds_left": course.seconds_left if state == "running" else None,
            "last_validation": None if newest is None else newest.model_dump(mode="json"),
            "findings": [finding.model_dump(mode="json") for finding in course.findings],
        }
    )
