"""`dskd-compress validate`: is the exported student still the student?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from dskd_compress.commands import options


def validate(
    run: options.Run,
    precision: Annotated[
        Optional[list[str]],
        typer.Option("--precision", help="Only this precision of the bundle, for example int8; repeatable."),
    ] = None,
    provider: Annotated[
        Optional[list[str]],
        typer.Option(
            "--provider", help="Only this provider, cpu or cuda; repeatable. Default: all that are here."
        ),
    ] = None,
    images: Annotated[
        Optional[int], typer.Option("--images", help="Images of the validation set. Default: all.")
    ] = None,
    pair: Annotated[
        Optional[tuple[str, str]],
        typer.Option(
            "--pair",
            metavar="REFERENCE CANDIDATE",
            help="Compare these two, for example torch:cpu:fp32 onnxruntime:cpu:int8.",
        ),
    ] = None,
    junit: Annotated[
        Optional[Path], typer.Option("--junit", metavar="FILE", help="Write the verdict as JUnit XML as well.")
    ] = None,
    set_: options.Overrides = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Hold the exported models against torch on real images. Exit code 5 when a limit or the budget is crossed.

    fp32 is held to the limits in [bold]validate[/bold], every other precision to the recipe's
    [bold]budget[/bold], by the end of the 95 % interval and not by the value.

    [bold]Examples[/bold]

      dskd-compress validate runs/r18
      dskd-compress validate runs/r18 --precision int8 --set budget.int8.top1_drop=0.01
      dskd-compress validate runs/r18 --pair onnxruntime:cpu:fp32 onnxruntime:cuda:fp16
      dskd-compress validate runs/r18 --images 512 --junit validation.xml
    """
    from dskd_compress.console import Output
    from dskd_compress.run_folder import RunFolder

    output = Output(json_output)
    folder = RunFolder(run)
    flags = options.as_overrides(
        validate__precisions=precision, validate__providers=provider, validate__images=images, validate__pair=pair
    )
    recipe = folder.read_recipe([*flags, *(set_ or [])])

    from dskd_compress.stages.judge import print_validation, refuse_failed
    from dskd_compress.stages.validate import run_validate
    from dskd_export.files import write_atomic

    document = run_validate(recipe, folder, output)
    print_validation(document, output)
    if junit is not None:
        from dskd_export.junit import junit_xml

        write_atomic(junit, junit_xml(document))
    output.result(document)
    refuse_failed(document)
