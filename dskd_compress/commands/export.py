"""`dskd-compress export`: write the bundle."""

from __future__ import annotations

import shlex

from dskd_compress.commands import options, settings


@settings.takes(settings.PRECISION, settings.TARGET, settings.EXPORTER)
def export(
    *,
    run: options.Run,
    changes: list[str],
    accept_unproven: options.AcceptUnproven = False,
    json_output: options.JsonFlag = False,
) -> None:
    """Export the student to ONNX and write the bundle that goes to the device.

    int8 and fp8 are calibrated on training images. Layers that cost accuracy are found and kept in floating point.
    A --target without --precision exports all that suit it, unless the run has other precisions already.

    With --precision auto the models are validated as well, and the one to ship is named: the fastest that passes
    and was timed on the target, else the smallest. Exit code 5: none passes. 6: one would with more images.

    [bold]Examples[/bold]

      dskd-compress export runs/r18
      dskd-compress export runs/r18 --precision fp16,int8 --target jetson-orin
      dskd-compress export runs/r18 --precision auto --target ada
      dskd-compress export runs/r18 --set export.opset=18
      dskd-compress export runs/r18 --set export.input=uint8 --set export.layout=NHWC --set export.softmax=true
      dskd-compress export runs/r18 --exporter legacy
    """
    from dskd_compress.console import Output
    from dskd_compress.precisions import settle_precisions
    from dskd_compress.run_folder import RunFolder
    from dskd_compress.stages.export import run_export

    output = Output(json_output)
    folder = RunFolder(run)
    recipe, said = settle_precisions(folder.read_recipe(changes), folder, changes)
    for sentence in said:
        output.plain(sentence)
    manifest = run_export(recipe, folder, output)
    output.plain(f"Bundle: {folder.bundle}")
    if 'export.precisions="auto"' in settings.select_flags(changes):
        from dskd_compress.show.validation import (
            decision_in,
            print_decision,
            print_validation,
            refuse_undecided,
        )
        from dskd_compress.stages.validate import run_validate

        document = run_validate(recipe, folder, output)
        decision = decision_in(folder.path, document)
        print_validation(document, decision, output)
        print_decision(decision, output)
        output.result(document)
        again = shlex.join(["dskd-compress", "validate", str(folder.path)])
        refuse_undecided(decision, accept_unproven, document, again)
    else:
        options.say_next("validate", folder.path, output)
        output.result(manifest)
