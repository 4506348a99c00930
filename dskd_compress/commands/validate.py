"""`dskd-compress validate`: is the student good enough, and are the exported models still the student?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from dskd_compress.commands import options

if TYPE_CHECKING:
    from dskd_compress.run_folder import RunFolder


def validate(
    source: options.RunOrBundle,
    precision: options.Precisions = None,
    runner: options.Runners = None,
    provider: options.Providers = None,
    allow_cpu: options.AllowCpu = None,
    images: Annotated[
        Optional[str],
        typer.Option(
            "--images",
            metavar="N|FOLDER",
            help="Of a run: so many images of the validation set, default all. Of a bundle: a folder of labelled "
            "images, CLASS/IMAGE or with a labels.csv.",
        ),
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
    accept_unproven: options.AcceptUnproven = False,
    out: options.Results = None,
    set_: options.Overrides = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Judge the student against its teacher, and the exported models against the student.

    PASS (exit code 0): the end of every 95 % interval is within its limit. NOT SHOWN (6): a value is within its
    limit, its interval is not; the verdict says how many images would do. FAIL (5): a value is beyond its limit.

    The student is judged by [bold]budget.student_drop[/bold] and by the commonest class, fp32 by the limits in
    [bold]validate[/bold], every other precision by the [bold]budget[/bold]. A bundle is validated
    without torch: fp32 on the CPU has to give torch's logits of the golden images, and is the reference
    for all others on the images of --images. TensorRT engines that [bold]build[/bold] made are judged as well,
    where they can be run.

    [bold]Examples[/bold]

      dskd-compress validate runs/r18
      dskd-compress validate runs/r18 --precision int8 --set budget.int8.top1_drop=0.01
      dskd-compress validate runs/r18 --pair onnxruntime:cpu:fp32 onnxruntime:cuda:fp16
      dskd-compress validate runs/r18 --images 512 --junit validation.xml
      dskd-compress validate r18.tar.gz --images photos/val
      dskd-compress validate bundle --runner tensorrt --out results/orin
    """
    from dskd_compress.console import Output
    from dskd_compress.show.validation import decision_in, print_validation, refuse_failed
    from dskd_export.bundle.source import is_bundle
    from dskd_export.files.atomic import write_atomic

    output = Output(json_output)
    flags = options.as_overrides(
        validate__precisions=precision,
        validate__runners=runner,
        validate__providers=provider,
        validate__allow_cpu=options.operators(allow_cpu),
        validate__pair=pair,
    )
    written = None
    if is_bundle(source):
        from dskd_compress.stages.validate import validate_source

        folder = None if images is None else Path(images)
        document, written = validate_source(source, [*flags, *(set_ or [])], folder, out, output)
    else:
        from dskd_compress.run_folder import RunFolder

        run = RunFolder(source)
        changes = [*flags, *_count(images, run), *(set_ or [])]
        recipe = run.read_recipe(changes)
        options.refuse_out(out)
        options.say_chosen(recipe.validation.precisions, "validate.precisions", changes, output)

        from dskd_compress.stages.validate import run_validate

        document = run_validate(recipe, run, output)
    print_validation(document, decision_in(written or source), output)
    if junit is not None:
        from dskd_export.ci.junit import junit_xml

        write_atomic(junit, junit_xml(document, accept_unproven=accept_unproven))
    options.say_where(written, output)
    output.result(document)
    refuse_failed(document, accept_unproven)


def _count(images: str | None, run: RunFolder) -> list[str]:
    from dskd_export.errors import UsageError

    if images is None:
        return []
    if not images.isdecimal():
        run.read_recipe()  # what is no run says so
        raise UsageError(
            f"--images {images}: a run is validated on its own images.",
            f"Give their number, or {options.of_bundle('validate', run, images)}",
        )
    return options.as_overrides(validate__images=int(images))
