"""`dskd-compress distill`: distil the student."""

from __future__ import annotations

from dskd_compress.commands import options


def distill(
    recipe: options.RecipeName = None,
    out: options.Out = None,
    teacher: options.Teacher = None,
    teacher_checkpoint: options.TeacherCheckpoint = None,
    student: options.Student = None,
    student_checkpoint: options.StudentCheckpoint = None,
    data: options.Data = None,
    method: options.MethodName = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    lr: options.Lr = None,
    input_size: options.InputSize = None,
    device: options.Device = None,
    amp: options.Amp = None,
    precision: options.OldAmp = None,
    seed: options.Seed = None,
    dry_run: options.DryRun = False,
    set_: options.Overrides = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Distil a teacher into a student and throw everything else away.

    Started again after Ctrl-C, a crash or a power cut, the same command goes on where it stopped.

    [bold]Examples[/bold]

      dskd-compress distill --teacher resnet34 --student resnet18 --data photos --out runs/r18
      dskd-compress distill recipe.yaml --set train.epochs=100 --dry-run
      dskd-compress distill --teacher resnet50 --teacher-checkpoint my.safetensors --student resnet18 --data photos
    """
    from rich.markup import escape

    from dskd_compress.console import Output
    from dskd_compress.recipe import FlagOverride

    output = Output(json_output)
    flags = options.as_overrides(
        teacher__name=teacher,
        teacher__checkpoint=teacher_checkpoint,
        student__name=student,
        student__checkpoint=student_checkpoint,
        method__name=method,
        data__source=data,
        data__input_size=input_size,
        train__epochs=epochs,
        train__batch_size=batch_size,
        train__lr=lr,
        train__device=device,
        train__precision=options.amp_of(amp, precision, output),
        seed=seed,
    )
    if teacher_checkpoint is not None:
        # Weights of one's own need no training here.
        flags.append(FlagOverride("teacher.train=null", f"--teacher-checkpoint {teacher_checkpoint}"))
    loaded, folder = options.resolve_run(recipe, out, flags, set_)
    if dry_run:
        from dskd_compress.stages.plan import make_plan, print_plan

        plan = make_plan(loaded, folder)
        print_plan(plan, output)
        output.result(plan)
        return

    from dskd_compress.stages.distill import run_distill

    document = run_distill(loaded, folder, output)
    output.print(
        escape(
            f"Student {document.model.name}: top-1 {document.best.top1.value:.2%}, "
            f"in {folder.weights('student')}\n"
            f"Next: dskd-compress export {folder.path}"
        )
    )
    output.result(document)
