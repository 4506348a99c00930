"""`dskd-compress tune`: tune the student for 8 bits."""

from __future__ import annotations

from dskd_compress.commands import options


def tune(
    run: options.Run,
    amp: options.Amp = None,
    set_: options.Overrides = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Tune the student for int8 or fp8: a last short distillation with its rounding in it.

    The tuned weights are used for that precision alone; every other one is made of the student as it is.
    Started again after Ctrl-C or a crash, the same command goes on where it stopped.

    [bold]Examples[/bold]

      dskd-compress tune runs/r18 --set tune.epochs=3
      dskd-compress tune runs/r18 --set tune.precision=fp8 --set tune.lr=1e-4
    """
    from rich.markup import escape

    from dskd_compress.console import Output
    from dskd_compress.run_folder import RunFolder

    output = Output(json_output)
    folder = RunFolder(run)
    changes = [*options.as_overrides(tune__amp=amp), *(set_ or [])]
    recipe = folder.read_recipe(changes)
    if recipe.tune is None:
        recipe = folder.read_recipe(["tune={}", *changes])

    from dskd_compress.stages.tune import run_tune

    document = run_tune(recipe, folder, output)
    output.print(
        escape(
            f"Tuned: top-1 {document.best.top1.value:.2%} in that precision\n"
            f"Next: dskd-compress export {folder.path}"
        )
    )
    output.result(document)
