"""`dskd-compress distill`: train the student from the teacher."""

from __future__ import annotations

from dskd_compress.commands import options, settings


@settings.takes(
    *settings.MODELS_AND_DATA,
    settings.METHOD,
    settings.EPOCHS,
    settings.BATCH_SIZE,
    settings.LR,
    settings.DEVICE,
    settings.AMP,
    *settings.hide(settings.STUDENT_CHECKPOINT, settings.TEACHER_ACCURACY, settings.INPUT_SIZE, settings.SEED),
)
def distill(
    *,
    recipe: options.RecipeName = None,
    out: options.Out = None,
    changes: list[str],
    dry_run: options.DryRun = False,
    json_output: options.JsonFlag = False,
) -> None:
    """Train the student from the teacher and write its timm weights.

    After Ctrl-C, a crash or a power cut, the same command resumes the training.

    Also accepted: --student-checkpoint, --teacher-accuracy, --input-size and --seed.

    [bold]Examples[/bold]

      dskd-compress distill --teacher resnet34 --student resnet18 --data photos --out runs/r18
      dskd-compress distill recipe.yaml --set train.epochs=100 --dry-run
      dskd-compress distill --teacher resnet50 --teacher-checkpoint my.safetensors --student resnet18 --data photos
    """
    from dskd_compress.console import Output
    from dskd_compress.run_folder import resolve_run

    output = Output(json_output)
    loaded, folder = resolve_run(recipe, out, changes)
    if dry_run:
        from dskd_compress.stages.plan import make_plan, print_plan

        plan = make_plan(loaded, folder)
        print_plan(plan, output)
        output.result(plan)
        return

    from dskd_compress.stages.distill import run_distill

    document = run_distill(loaded, folder, output)
    top1, weights = document.best.top1.value, folder.weights("student")
    output.plain(f"Student {document.model.name}: top-1 {top1:.2%}, in {weights}")
    options.say_next("export", folder.path, output)
    output.result(document)
