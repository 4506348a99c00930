"""`dskd-compress validate`: is the exported student still the student?"""

from __future__ import annotations

from dskd_compress.commands import options


def validate(run: options.Run, set_: options.Overrides = None, json_output: options.JsonFlag = False) -> None:
    """Hold the exported student against torch on real images. Exit code 5 when a limit is crossed.

    [bold]Examples[/bold]

      dskd-compress validate runs/r18
      dskd-compress validate runs/r18 --set validate.images=512 --set validate.max_abs_relative=1e-5
    """
    from dskd_compress.console import Output
    from dskd_compress.run_folder import RunFolder

    output = Output(json_output)
    folder = RunFolder(run)
    recipe = folder.read_recipe(set_ or [])

    from dskd_compress.stages.judge import print_validation, refuse_failed
    from dskd_compress.stages.validate import run_validate

    document = run_validate(recipe, folder, output)
    print_validation(document, output)
    output.result(document)
    refuse_failed(document)
