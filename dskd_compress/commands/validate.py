"""`dskd-compress validate`: is the student good enough, and are the exported models still the student?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from dskd_compress.commands import options, settings

if TYPE_CHECKING:
    from dskd_compress.console import Output
    from dskd_export.documents.validation import ValidationDocument

Images = Annotated[
    Optional[Path],
    typer.Option(
        "--images",
        metavar="FOLDER",
        help="Labelled images for a bundle: CLASS/IMAGE, or with a labels.csv. A run has its own.",
    ),
]
Pair = Annotated[
    Optional[tuple[str, str]],
    typer.Option(
        "--pair",
        metavar="REFERENCE CANDIDATE",
        help="Compare these two, for example torch:cpu:fp32 onnxruntime:cpu:int8.",
    ),
]
Junit = Annotated[
    Optional[Path], typer.Option("--junit", metavar="FILE", help="Also write the verdict as JUnit XML.")
]


@settings.takes(
    *settings.for_validate(settings.BUNDLE_PRECISION, settings.RUNNER, settings.PROVIDER, settings.ALLOW_CPU),
    settings.MAX_IMAGES,
)
def validate(
    *,
    source: options.RunOrBundle,
    images: Images = None,
    changes: list[str],
    pair: Pair = None,
    junit: Junit = None,
    accept_unproven: options.AcceptUnproven = False,
    out: options.Results = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Judge the student against its teacher, and the exported models against the student.

    PASS (exit code 0): the end of every 95 % interval is within its limit. NOT SHOWN (6): a value is within its
    limit, its interval is not; the verdict says how many images would do. FAIL (5): a value is beyond its limit.

    The student is judged by [bold]budget.student_drop[/bold] and by the commonest class, fp32 by the limits in
    [bold]validate[/bold], other precisions by the [bold]budget[/bold]. A bundle is validated without torch: fp32
    on the CPU has to give torch's logits of the golden images, and is the reference for the others on --images.
    Engines of [bold]build[/bold] are judged where they can run. --pair decides nothing and is not kept.

    [bold]Examples[/bold]

      dskd-compress validate runs/r18
      dskd-compress validate runs/r18 --precision int8 --set budget.int8.top1_drop=0.01
      dskd-compress validate runs/r18 --pair onnxruntime:cpu:fp32 onnxruntime:cuda:fp16
      dskd-compress validate runs/r18 --max-images 512 --junit validation.xml
      dskd-compress validate r18.tar.gz --images photos/val
      dskd-compress validate bundle --runner tensorrt --out results/orin
    """
    from dskd_compress.console import Output
    from dskd_compress.show.validation import decision_in, print_decision, print_validation, refuse_failed
    from dskd_export.bundle.source import is_bundle

    output = Output(json_output)
    if images is not None and str(images).isdecimal() and not is_bundle(source):
        output.warn(f"--images {images} is now called --max-images {images}")
        changes, images = [*options.as_overrides(validate__images=int(str(images))), *changes], None
    changes = [*options.as_overrides(validate__pair=pair), *changes]
    document, folder = _validate(source, changes, images, out, output)
    decision = decision_in(folder, document)
    print_validation(document, decision, output)
    print_decision(decision, output)
    if junit is not None:
        _write_junit(junit, document, accept_unproven)
    options.say_where(None if folder == source else folder, output)
    output.result(document.without_photos())
    refuse_failed(document, accept_unproven, _repeat(source, images))


def _write_junit(path: Path, document: ValidationDocument, accept_unproven: bool) -> None:
    from dskd_export.ci.junit import junit_xml
    from dskd_export.files.atomic import write_atomic

    write_atomic(path, junit_xml(document, accept_unproven=accept_unproven))


def _repeat(source: Path, images: Path | None) -> str:
    """The command that validates again."""
    import shlex

    words = ["dskd-compress", "validate", str(source), *(["--images", str(images)] if images else [])]
    return shlex.join(words)


def _validate(
    source: Path, changes: list[str], images: Path | None, out: Path | None, output: Output
) -> tuple[ValidationDocument, Path]:
    """Validate a run or a bundle; the document, and the folder that it is in."""
    from dskd_compress.run_folder import RunFolder
    from dskd_compress.stages.validate import run_validate, validate_bundle
    from dskd_export.bundle.source import is_bundle
    from dskd_export.errors import UsageError

    if is_bundle(source):
        return validate_bundle(source, changes, images, out, output)
    run = RunFolder(source)
    recipe = run.read_recipe(changes)
    options.refuse_out(out)
    if images is not None:
        raise UsageError(
            f"--images {images}: a run is validated on its own images.",
            f"Leave --images out, or {options.of_bundle('validate', run, str(images))}",
        )
    options.say_chosen(recipe.validation.precisions, "validate.precisions", changes, output)
    return run_validate(recipe, run, output), source
