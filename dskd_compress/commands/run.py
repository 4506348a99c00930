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
    teacher: options.Teacher = None,
    teacher_checkpoint: options.TeacherCheckpoint = None,
    student: options.Student = None,
    student_checkpoint: options.StudentCheckpoint = None,
    data: options.Data = None,
    method: options.MethodName = None,
    epochs: Annotated[Optional[int], typer.Option("--epochs", help="Epochs of the student's training.")] = None,
    batch_size: Annotated[
        Optional[int], typer.Option("--batch-size", help="Images a step of the student's training.")
    ] = None,
    lr: Annotated[Optional[float], typer.Option("--lr", help="Peak learning rate of the student.")] = None,
    input_size: options.InputSize = None,
    device: options.Device = None,
    amp: options.Amp = None,
    precision: options.ModelPrecisions = None,
    target: options.Target = None,
    seed: options.Seed = None,
    accept_unproven: options.AcceptUnproven = False,
    set_: options.Overrides = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Train, distil, export, validate, benchmark and report; skip what is unchanged and say why not.

    Without a recipe: that of --teacher, --student and --data; without these the one on handwritten digits.
    A teacher with another number of classes than the data gets a classifier that is fitted on its features.

    Stages: train, distill, tune, export, validate, benchmark, report.

    --precision names the models to export. The number type of training is --amp.

    Whatever the verdict, the report is written. The exit code is the worst of validate and benchmark: 5 where
    one fails, 6 where one is not shown to pass.

    [bold]Examples[/bold]

      dskd-compress run --out runs/demo
      dskd-compress run recipe.yaml --out runs/bolts --from export
      dskd-compress run --teacher resnet50 --teacher-checkpoint my.safetensors --student resnet18 --data photos
      dskd-compress run recipe.yaml --to validate --device cuda --amp bf16 --precision fp16,int8
    """
    from rich.markup import escape

    from dskd_compress.console import Output
    from dskd_compress.recipe import DEFAULT_RECIPE, FlagOverride

    output = Output(json_output)
    flags = options.as_overrides(
        teacher__name=teacher,
        teacher__checkpoint=teacher_checkpoint,
        student__name=student,
        student__checkpoint=student_checkpoint,
        data__source=data,
        data__input_size=input_size,
        method__name=method,
        train__epochs=epochs,
        train__batch_size=batch_size,
        train__lr=lr,
        train__device=device,
        train__precision=amp,
        export__precisions=options.models_of(precision),
        export__target=target,
        seed=seed,
    )
    if teacher_checkpoint is not None:
        # Weights of one's own need no training here, unless --set teacher.train.* asks for it.
        flags.append(FlagOverride("teacher.train=null", f"--teacher-checkpoint {teacher_checkpoint}"))
    changes = [*flags, *(set_ or [])]
    # One flag that says what to run asks for the others: never another teacher, student or data than was meant.
    named = (teacher, teacher_checkpoint, student, student_checkpoint, data)
    default = None if any(named) or options.names_a_run(changes) else DEFAULT_RECIPE
    loaded, folder = options.resolve_run(recipe, out, flags, set_, default=default)
    if loaded.teacher.train is not None:
        more = options.as_overrides(teacher__train__device=device, teacher__train__precision=amp)
        loaded, folder = options.resolve_run(recipe, out, [*flags, *more], set_, default=default)

    from dskd_compress.precisions import with_bundled
    from dskd_compress.show.benchmark import print_judgements
    from dskd_compress.show.verdicts import decision_in, print_validation, refuse_run
    from dskd_compress.stages.pipeline import benchmark_of, run_pipeline, validation_of

    loaded, kept = with_bundled(loaded, folder, changes)
    options.say_kept(kept, output)
    outcomes = list(run_pipeline(loaded, folder, output, first=first, last=last))
    reported = [outcome for outcome in outcomes if outcome.stage == "report"]
    report = folder / "report.html"
    stages = {outcome.stage for outcome in outcomes}
    document = validation_of(folder) if "validate" in stages else None
    timed = benchmark_of(folder) if "benchmark" in stages else None
    decision = decision_in(folder.path)
    if timed is not None:
        print_judgements("Budget", timed.judgements, output)
    if document is not None:
        print_validation(document, decision, output)
    if any(outcome.ran for outcome in reported):  # an older one does not speak of this run
        output.print(escape(f"Report: {report}"))
    output.result(
        {
            "run": str(folder.path),
            "stages": [vars(outcome) for outcome in outcomes],
            "verdict": None if document is None else document.verdict,
            "passed": None if document is None else document.passed,
            "ship": None if document is None or decision.verdict != "PASS" else vars(decision.model),
            "report": str(report) if reported else None,
        }
    )
    refuse_run(document, timed, accept_unproven)
