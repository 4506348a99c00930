"""`dskd-compress export`: write the bundle."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from dskd_compress.commands import options

Exporter = Annotated[
    Optional[str], typer.Option("--exporter", help="dynamo, or legacy for models that dynamo cannot take.")
]


def export(
    run: options.Run,
    precision: options.ModelPrecisions = None,
    target: options.Target = None,
    exporter: Exporter = None,
    accept_unproven: options.AcceptUnproven = False,
    set_: options.Overrides = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Export the student to ONNX and write the bundle that goes to the device.

    int8 and fp8 are calibrated on training images. Layers that cost the accuracy are found and left in
    floating point. With --precision auto the models are validated as well, and the one to ship is named: of
    what passes the fastest that was timed here, else the smallest. Exit code 5 where none passes, 6 where
    one would with more images.

    [bold]Examples[/bold]

      dskd-compress export runs/r18
      dskd-compress export runs/r18 --precision fp16,int8 --target jetson-orin
      dskd-compress export runs/r18 --precision auto --target ada
      dskd-compress export runs/r18 --set export.opset=18
      dskd-compress export runs/r18 --set export.input=uint8 --set export.layout=NHWC --set export.softmax=true
      dskd-compress export runs/r18 --exporter legacy
    """
    from rich.markup import escape

    from dskd_compress.console import Output
    from dskd_compress.run_folder import RunFolder

    output = Output(json_output)
    folder = RunFolder(run)
    auto = precision == "auto"
    names = options.models_of(precision)
    flags = options.as_overrides(export__precisions=names, export__target=target, export__exporter=exporter)
    changes = [*flags, *(set_ or [])]
    recipe = folder.read_recipe(changes)

    from dskd_compress.precisions import with_bundled
    from dskd_compress.stages.export import run_export

    recipe, kept = with_bundled(recipe, folder, changes)
    options.say_kept(kept, output)

    manifest = run_export(recipe, folder, output)
    output.print(escape(f"Bundle: {folder.bundle}"))
    if auto:
        from dskd_compress.show.verdicts import decision_in, print_validation, refuse_undecided
        from dskd_compress.stages.validate import run_validate

        document = run_validate(recipe, folder, output)
        decision = decision_in(folder.path)
        print_validation(document, decision, output)
        output.result(document)
        refuse_undecided(decision, accept_unproven)
    else:
        output.print(escape(f"Next: dskd-compress validate {folder.path}"))
        output.result(manifest)
