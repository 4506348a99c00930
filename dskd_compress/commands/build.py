"""`dskd-compress build`: TensorRT engines from a bundle, on the device that will run them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, cast

import typer

from dskd_compress.commands import options

if TYPE_CHECKING:
    from dskd_compress.console import Output
    from dskd_export.engine.builder import BuildTarget
    from dskd_export.engine.document import BuildDocument, BuiltEngine
    from dskd_export.errors import GateFailed
    from dskd_export.settings import BuildSettings

_PANEL = "How it is built (default: the recipe's section build)"
_SPECIAL = "For special uses"


def build(
    source: Annotated[Path, typer.Argument(metavar="BUNDLE_OR_RUN", help="Bundle, or run folder that holds one.")],
    precision: Annotated[
        Optional[str], typer.Option("--precision", help="Of the bundle, with commas. Default: all that it holds.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cuda or cuda:1.")] = "auto",
    target: Annotated[
        Optional[str],
        typer.Option(
            "--target", help="Build ahead of time for these compute capabilities (sm86,sm120): TensorRT-RTX only."
        ),
    ] = None,
    backend: Annotated[
        str, typer.Option("--backend", help="tensorrt, tensorrt-rtx, or auto: the first that is installed.")
    ] = "auto",
    batches: Annotated[
        Optional[str],
        typer.Option("--batches", help="Batch sizes with commas, for example 1,8.", rich_help_panel=_PANEL),
    ] = None,
    workspace_mb: Annotated[
        Optional[float],
        typer.Option(
            "--workspace-mb", help="Scratch memory of a layer, 1 MB = 10^6 bytes.", rich_help_panel=_PANEL
        ),
    ] = None,
    level: Annotated[
        Optional[int],
        typer.Option("--level", help="0 to 5: how long kernels are searched for.", rich_help_panel=_PANEL),
    ] = None,
    tf32: Annotated[
        Optional[bool], typer.Option("--tf32/--no-tf32", help="fp32 may round factors.", rich_help_panel=_PANEL)
    ] = None,
    version_compatible: Annotated[
        Optional[bool],
        typer.Option(
            "--version-compatible/--this-version", help="Loads in later TensorRT too.", rich_help_panel=_PANEL
        ),
    ] = None,
    hardware: Annotated[
        Optional[str],
        typer.Option("--hardware", help="none, ampere-plus or same-compute-capability.", rich_help_panel=_PANEL),
    ] = None,
    dla: Annotated[
        Optional[int], typer.Option("--dla", help="Use this DLA of a Jetson Orin.", rich_help_panel=_SPECIAL)
    ] = None,
    strip: Annotated[
        str,
        typer.Option(
            "--strip",
            help="Leave the weights out, to put in later: identical ones, or new-weights.",
            rich_help_panel=_SPECIAL,
        ),
    ] = "none",
    refit_from: Annotated[
        Optional[Path],
        typer.Option(
            "--refit-from",
            metavar="ENGINE",
            help="Put this bundle's weights into a stripped engine; search for no kernel.",
            rich_help_panel=_SPECIAL,
        ),
    ] = None,
    timing_cache: Annotated[
        Optional[str],
        typer.Option(
            "--timing-cache",
            metavar="SHA256",
            help="Build only with this timing cache (build.json has its hash).",
            rich_help_panel=_SPECIAL,
        ),
    ] = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Build TensorRT engines from a bundle, on the machine that they will run on.

    Precision is that of the bundle's models; on this machine's GPU every engine is then run once, and what its
    layers really compute in is counted: exit code 5 where that is not what was asked for. TensorRT-RTX also
    builds ahead of time, without a GPU.

    [bold]Examples[/bold]

      dskd-compress build runs/r18
      dskd-compress build bundle --precision fp16,int8 --batches 1,8
      dskd-compress build bundle --target sm86,sm89,sm120
      dskd-compress build bundle --precision fp16 --dla 0 --batches 1
      dskd-compress build bundle --precision fp16 --strip new-weights
      dskd-compress build retrained --precision fp16 --refit-from bundle.engines/orin/model.fp16.stripped.engine
    """
    from dskd_compress.config import Recipe
    from dskd_compress.console import Output
    from dskd_compress.recipe import bundle_settings
    from dskd_compress.run_folder import RunFolder
    from dskd_export.engine.builder import BuildTarget
    from dskd_export.engine.document import BuildReport, engines_folder
    from dskd_export.errors import UsageError

    output = Output(json_output)
    # These are settings, kept in the run's recipe; what is built, where and for what is said anew by each call.
    flags = options.as_overrides(
        build__batches=_numbers(batches),
        build__workspace_mb=workspace_mb,
        build__optimization_level=level,
        build__tf32=tf32,
        build__version_compatible=version_compatible,
        build__hardware=hardware,
    )
    if strip not in ("none", "identical", "new-weights"):
        raise UsageError(f"--strip: there is no {strip}.", "Choose identical or new-weights.")
    in_run = (source / "recipe.yaml").is_file()
    recipe = RunFolder(source).read_recipe(flags) if in_run else bundle_settings(flags, ("build",))
    build_target = BuildTarget(
        backend=cast(Any, backend),
        device=device,
        targets=tuple(_words(target)),
        strip=cast(Any, strip),
        dla_core=dla,
        timing_cache_sha256=timing_cache,
    )
    engines = engines_folder(source) if refit_from is None else refit_from.absolute().parent.parent
    with _held(engines, output):
        built, failed = _build_all(source, _words(precision), recipe.build, build_target, refit_from, output)
        if flags and isinstance(recipe, Recipe):
            RunFolder(source).keep(recipe, ("build",))
    _show(built, output)
    output.result(BuildReport(engines=built, failed=[problem.message for problem in failed]))
    if failed:
        raise failed[0]


def _held(engines: Path, output: Output) -> AbstractContextManager[None]:
    """Hold the run that the engines belong to, or the folder of a bundle's engines: see `hold_folder`."""
    from dskd_compress.run_folder import RunFolder
    from dskd_export.files.folder_lock import hold_folder

    if (engines.parent / "recipe.yaml").is_file():
        return RunFolder(engines.parent).writing(output.warn)
    return hold_folder(engines, output.warn, folders=("*",))


def _build_all(
    source: Path,
    precisions: list[str],
    settings: BuildSettings,
    target: BuildTarget,
    refit_from: Path | None,
    output: Output,
) -> tuple[list[BuiltEngine], list[GateFailed]]:
    """Build each precision; report those that do not run in the requested type."""
    from dskd_export.bundle import bundle_of, open_bundle
    from dskd_export.engine.builder import build_engine
    from dskd_export.engine.document import BuiltEngine, engines_folder
    from dskd_export.engine.refit import refit_engine

    bundle = open_bundle(bundle_of(source))
    names = precisions or list(bundle.precisions)
    built: list[BuiltEngine] = []
    failed: list[GateFailed] = []
    with output.progress("Building", len(names), unit="engine") as progress:
        for name in names:
            progress.update(description=f"Building {name}")
            if refit_from is not None:
                path, document = refit_engine(refit_from, bundle, name)
            else:
                path, document = build_engine(bundle, name, engines_folder(source), settings, target)
            document, problem = _proven(path, document, target.device)
            built.append(BuiltEngine(path=str(path), build=document))
            failed += [problem] if problem is not None else []
            progress.advance(1)
    return built, failed


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()] if text else []


def _numbers(text: str | None) -> list[Any] | None:
    return [int(word) if word.isdecimal() else word for word in text.split(",")] if text else None


def _proven(path: Path, document: BuildDocument, device: str) -> tuple[BuildDocument, Any]:
    """Run an engine that was built for this GPU, and hold it to its precision."""
    from dskd_export.engine.device import index_of
    from dskd_export.engine.inspect import refuse_other_precision
    from dskd_export.errors import GateFailed
    from dskd_export.runtime.engine_proof import prove_engine

    if document.gpu is not None and not document.stripped:
        document = prove_engine(path, device=index_of(device))
    try:
        refuse_other_precision(document)
    except GateFailed as problem:
        return document, problem
    return document, None


def _show(built: list[BuiltEngine], output: Output) -> None:
    """A table of what was built."""
    from rich.markup import escape

    rows = []
    for engine in built:
        document, truth = engine.build, engine.build.truth
        types = document.no_truth
        if truth is not None:
            timed = all(share.time_share is not None for share in truth.types)
            shares = [(share.type, share.time_share if timed else share.layer_share) for share in truth.types]
            types = ", ".join(f"{name} {share or 0.0:.0%}" for name, share in shares)
            types += " of time" if timed else " of layers"
        rows.append(
            [
                document.precision,
                f"{document.backend} {document.version}",
                ", ".join(document.targets) if document.gpu is None else document.gpu.name,
                f"{document.engine_bytes / 1e6:.1f}",
                f"{document.build_seconds:.1f}",
                types,
            ]
        )
    output.table("Engines", ["precision", "built by", "for", "MB", "seconds", "runs in"], rows)
    for engine in built:
        output.print(escape(f"Engine: {engine.path}"))
        for warning in engine.build.warnings[:3]:
            output.warn(f"{engine.build.precision}: {warning}")
