"""`dskd-compress train`: train the recipe's teacher."""

from __future__ import annotations

from dskd_compress.commands import options, settings


@settings.takes(
    settings.TEACHER,
    settings.TEACHER_START,
    settings.STUDENT,
    settings.DATA,
    *settings.for_teacher(settings.EPOCHS, settings.BATCH_SIZE, settings.LR),
    settings.INPUT_SIZE,
    *settings.for_teacher(settings.DEVICE, settings.AMP),
    settings.SEED,
    *settings.hide(settings.STUDENT_CHECKPOINT),
)
def train(
    *,
    recipe: options.RecipeName = None,
    out: options.Out = None,
    changes: list[str],
    json_output: options.JsonFlag = False,
) -> None:
    """Train the teacher on the data and write its weights.

    For recipes without a trained teacher. Training starts from --teacher-checkpoint, whose classifier may have
    other classes. --set teacher.fit=head trains the classifier alone.

    [bold]Examples[/bold]

      dskd-compress train digits/resnet18-to-mobilenetv3_small_050 --out runs/digits
      dskd-compress train --teacher resnet34 --student resnet18 --data photos --epochs 60 --out runs/r18
    """
    from dskd_compress.console import Output
    from dskd_compress.recipe import FlagOverride
    from dskd_compress.run_folder import names_a_run, resolve_run

    output = Output(json_output)
    if recipe is None and names_a_run(changes):
        changes = [FlagOverride("teacher.fit=all", "train"), *changes]
    loaded, folder = resolve_run(recipe, out, changes)

    from dskd_compress.stages.train import run_train

    document = run_train(loaded, folder, output)
    top1, weights = document.best.top1.value, folder.weights("teacher")
    output.plain(f"Teacher {document.model.name}: top-1 {top1:.2%}, in {weights}")
    options.say_next("distill", folder.path, output)
    output.result(document)
