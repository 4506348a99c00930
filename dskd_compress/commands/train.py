"""`dskd-compress train`: train the recipe's teacher."""

from __future__ import annotations

from dskd_compress.commands import options


def train(
    recipe: options.RecipeName = None,
    out: options.Out = None,
    teacher: options.Teacher = None,
    teacher_checkpoint: options.TeacherCheckpoint = None,
    student: options.Student = None,
    data: options.Data = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    lr: options.Lr = None,
    input_size: options.InputSize = None,
    device: options.Device = None,
    amp: options.Amp = None,
    precision: options.OldAmp = None,
    seed: options.Seed = None,
    set_: options.Overrides = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Train the teacher on the data, where the recipe has no trained one.

    A checkpoint is where the training starts; its classifier may be of other classes.

    [bold]Examples[/bold]

      dskd-compress train digits/resnet18-to-mobilenetv3_small_050 --out runs/digits
      dskd-compress train --teacher resnet34 --student resnet18 --data photos --epochs 60 --out runs/r18
    """
    import shlex

    from rich.markup import escape

    from dskd_compress.console import Output
    from dskd_compress.recipe import FlagOverride

    output = Output(json_output)
    flags = options.as_overrides(
        teacher__name=teacher,
        teacher__checkpoint=teacher_checkpoint,
        teacher__train__epochs=epochs,
        teacher__train__batch_size=batch_size,
        teacher__train__lr=lr,
        teacher__train__device=device,
        teacher__train__precision=options.amp_of(amp, precision, output),
        student__name=student,
        data__source=data,
        data__input_size=input_size,
        seed=seed,
    )
    if recipe is None and not any(flag.startswith("teacher.train.") for flag in flags):
        flags.append(FlagOverride("teacher.train={}", "train"))
    loaded, folder = options.resolve_run(recipe, out, flags, set_)

    from dskd_compress.stages.train import run_train

    document = run_train(loaded, folder, output)
    output.print(
        escape(
            f"Teacher {document.model.name}: top-1 {document.best.top1.value:.2%}, "
            f"in {folder.weights('teacher')}\n"
            f"Next: dskd-compress distill {shlex.quote(str(folder.path))}"
        )
    )
    output.result(document)
