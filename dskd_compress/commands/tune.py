"""`dskd-compress tune`: tune the student for 8 bits."""

from __future__ import annotations

from dskd_compress.commands import options, settings


@settings.takes(settings.TUNE_AMP)
def tune(*, run: options.Run, changes: list[str], json_output: options.JsonFlag = False) -> None:
    """Tune the student for int8 or fp8 by a short distillation that includes the rounding.

    The tuned weights are used for that precision alone; every other one is made from the student.
    After Ctrl-C or a crash, the same command resumes the training.

    [bold]Examples[/bold]

      dskd-compress tune runs/r18 --set tune.epochs=3
      dskd-compress tune runs/r18 --set tune.precision=fp8 --set tune.lr=1e-4
    """
    from dskd_compress.console import Output
    from dskd_compress.run_folder import RunFolder

    output = Output(json_output)
    folder = RunFolder(run)
    recipe = folder.read_recipe(changes)
    if recipe.tune is None:
        recipe = folder.read_recipe(["tune={}", *changes])

    from dskd_compress.stages.tune import run_tune

    document = run_tune(recipe, folder, output)
    output.plain(f"Tuned: top-1 {document.best.top1.value:.2%} in {recipe.tune.precision if recipe.tune else ''}")
    options.say_next("export", folder.path, output)
    output.result(document)
