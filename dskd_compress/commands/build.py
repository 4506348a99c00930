"""`dskd-compress build`: TensorRT engines from a bundle, on the device that will run them."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Optional, cast

import typer

from dskd_compress.commands import options
from dskd_compress.commands.renamed_options import RenamedOptions

if TYPE_CHECKING:
    from dskd_compress.console import Output
    from dskd_export.engine.builder import BuildTarget
    from dskd_export.engine.document import BuildDocument, BuiltEngine
    from dskd_export.errors import GateFailed
    from dskd_export.settings import BuildSettings

_PANEL = "TensorRT settings, named as in trtexec"
_SPECIAL = "Special engines"
_HARDWARE = {"ampere+": "ampere-plus", "sameComputeCapability": "same-compute-capability"}
_UNITS = {"B": 1, "K": 1024, "M": 1024**2, "G": 1024**3}

Source = Annotated[Path, typer.Argument(metavar="BUNDLE_OR_RUN", help="Bundle, or run folder that holds one.")]
Precision = Annotated[
    Optional[str], typer.Option("--precision", help="Models to build, with commas. Default: all in the bundle.")
]
Device = Annotated[str, typer.Option("--device", help="GPU to build on: auto, cuda or cuda:1.")]
ComputeCapability = Annotated[
    Optional[str],
    typer.Option(
        "--compute-capability",
        metavar="SM",
        help="Build ahead of time for these GPUs, for example sm86,sm120; TensorRT-RTX only, needs no GPU.",
    ),
]
Backend = Annotated[str, typer.Option("--backend", help="tensorrt, tensorrt-rtx, or auto: the first installed.")]
Batch = Annotated[
    Optional[str],
    typer.Option("--batch", help="Batch sizes, with commas: one profile each.", rich_help_panel=_PANEL),
]
MemPoolSize = Annotated[
    Optional[str],
    typer.Option(
        "--memPoolSize",
        metavar="SIZE",
        help="Largest scratch memory of a layer: workspace:MIB, or workspace:1G.",
        rich_help_panel=_PANEL,
    ),
]
OptimizationLevel = Annotated[
    Optional[int],
    typer.Option(
        "--builderOptimizationLevel",
        metavar="0-5",
        help="Search effort for kernels.",
        rich_help_panel=_PANEL,
    ),
]
Tf32 = Annotated[Optional[bool], typer.Option("--tf32/--noTF32", help="Allow TF32 in fp32 layers.", hidden=True)]
VersionCompatible = Annotated[
    Optional[bool],
    typer.Option(
        "--versionCompatible/--noVersionCompatible",
        help="Also load in later TensorRT versions; may be slower.",
        hidden=True,  # its two long names would cut those of the others at 80 columns
    ),
]
Hardware = Annotated[
    Optional[str],
    typer.Option(
        "--hardwareCompatibilityLevel",
        metavar="LEVEL",
        help="Also run on other GPUs: none, ampere+ or sameComputeCapability.",
        rich_help_panel=_PANEL,
    ),
]
DlaCore = Annotated[
    Optional[int], typer.Option("--useDLACore", help="DLA core of a Jetson Orin.", rich_help_panel=_SPECIAL)
]
StripWeights = Annotated[
    str,
    typer.Option(
        "--stripWeights",
        metavar="REFIT",
        help="Build without weights, to refit with identical ones or with new-weights.",
        rich_help_panel=_SPECIAL,
    ),
]
RefitFrom = Annotated[
    Optional[Path],
    typer.Option(
        "--refit-from",
        metavar="ENGINE",
        help="Put the bundle's weights into this stripped engine instead of building.",
        rich_help_panel=_SPECIAL,
    ),
]
TimingCache = Annotated[
    Optional[str],
    typer.Option("--timing-cache", metavar="SHA256", help="Require this timing cache.", hidden=True),
]


class BuildCommand(RenamedOptions):
    """`build`, with the names that its options had before."""

    renamed: ClassVar = {
        "--target": "--compute-capability",
        "--batches": "--batch",
        "--workspace-mb": "--memPoolSize",
        "--level": "--builderOptimizationLevel",
        "--no-tf32": "--noTF32",
        "--version-compatible": "--versionCompatible",
        "--this-version": "--noVersionCompatible",
        "--hardware": "--hardwareCompatibilityLevel",
        "--dla": "--useDLACore",
        "--strip": "--stripWeights",
    }
    converted: ClassVar = {
        "--workspace-mb": lambda mb: f"workspace:{float(mb) * 1e6:.0f}B" if _is_number(mb) else mb
    }


def build(
    source: Source,
    precision: Precision = None,
    device: Device = "auto",
    compute_capability: ComputeCapability = None,
    backend: Backend = "auto",
    batch: Batch = None,
    mem_pool_size: MemPoolSize = None,
    optimization_level: OptimizationLevel = None,
    tf32: Tf32 = None,
    version_compatible: VersionCompatible = None,
    hardware: Hardware = None,
    dla_core: DlaCore = None,
    strip_weights: StripWeights = "none",
    refit_from: RefitFrom = None,
    timing_cache: TimingCache = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Build TensorRT engines from a bundle, on the machine that will run them.

    On this machine's GPU each engine then runs once. Exit code 5: its layers do not run in their precision.
    Without an option, the recipe's section build decides.

    Also: --tf32 or --noTF32 for fp32 layers; --timing-cache SHA256 to repeat a build with its timing cache;
    --versionCompatible or --noVersionCompatible: also load in later TensorRT versions, which may be slower.

    [bold]Examples[/bold]

      dskd-compress build runs/r18
      dskd-compress build bundle --precision fp16,int8 --batch 1,8
      dskd-compress build bundle --compute-capability sm86,sm89,sm120
      dskd-compress build bundle --precision fp16 --useDLACore 0 --batch 1
      dskd-compress build bundle --precision fp16 --stripWeights new-weights
      dskd-compress build retrained --precision fp16 --refit-from bundle.engines/BOARD/model.fp16.stripped.engine
    """
    from dskd_compress.console import Output
    from dskd_export.engine.builder import BuildTarget

    output = Output(json_output)
    # These are settings, kept in the run's recipe; what is built, where and for what holds for this call.
    flags = options.as_overrides(
        build__batches=_numbers(batch),
        build__workspace_mb=_workspace_mb(mem_pool_size),
        build__optimization_level=optimization_level,
        build__tf32=tf32,
        build__version_compatible=version_compatible,
        build__hardware=None if hardware is None else _HARDWARE.get(hardware, hardware),
    )
    target = BuildTarget(
        backend=cast(Any, backend),
        device=device,
        targets=tuple(_sm(word) for word in _words(compute_capability)),
        strip=_refit(strip_weights),
        dla_core=dla_core,
        timing_cache_sha256=timing_cache,
    )
    _build(source, _words(precision), flags, target, refit_from, output)


def _build(
    source: Path,
    precisions: list[str],
    flags: list[str],
    target: BuildTarget,
    refit_from: Path | None,
    output: Output,
) -> None:
    """Build the engines, keep the settings in the run's recipe, and print the result."""
    from dskd_compress.config import Recipe
    from dskd_compress.recipe import bundle_settings
    from dskd_compress.run_folder import RunFolder
    from dskd_export.engine.document import BuildReport, engines_folder

    in_run = (source / "recipe.yaml").is_file()
    recipe = RunFolder(source).read_recipe(flags) if in_run else bundle_settings(flags, ("build",))
    engines = engines_folder(source) if refit_from is None else refit_from.absolute().parent.parent
    with _lock(engines, output):
        built, failed = _build_all(source, precisions, recipe.build, target, refit_from, output)
        if flags and isinstance(recipe, Recipe):
            RunFolder(source).keep(recipe, ("build",))
    _show(built, output)
    output.result(BuildReport(engines=built, failed=[problem.message for problem in failed]))
    if failed:
        raise failed[0]


def _lock(engines: Path, output: Output) -> AbstractContextManager[None]:
    """Lock the run that the engines belong to, or the folder of a bundle's engines."""
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
            document, problem = _prove(path, document, target.device)
            built.append(BuiltEngine(path=str(path), build=document))
            failed += [problem] if problem is not None else []
            progress.advance(1)
    return built, failed


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()] if text else []


def _sm(text: str) -> str:
    """Write `8.6` as `sm86`."""
    return text if text.startswith("sm") else f"sm{text.replace('.', '')}"


def _refit(strip_weights: str) -> Any:
    from dskd_export.errors import UsageError

    if strip_weights not in ("none", "identical", "new-weights"):
        raise UsageError(f"--stripWeights {strip_weights} is no kind of refit.", "Use identical or new-weights.")
    return strip_weights


def _workspace_mb(mem_pool_size: str | None) -> float | None:
    """Convert `workspace:256` (MiB) or `workspace:1G` to MB."""
    from dskd_export.errors import UsageError

    if mem_pool_size is None:
        return None
    match = re.fullmatch(r"workspace:(\d+(?:\.\d+)?)([BKMG]?)", mem_pool_size)
    if match is None:
        raise UsageError(
            f"--memPoolSize {mem_pool_size} is no workspace size.", "For example: --memPoolSize workspace:1024"
        )
    return float(match[1]) * _UNITS[match[2] or "M"] / 1e6


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None


def _numbers(text: str | None) -> list[Any] | None:
    return [int(word) if word.isdecimal() else word for word in text.split(",")] if text else None


def _prove(path: Path, document: BuildDocument, device: str) -> tuple[BuildDocument, Any]:
    """Run an engine that was built for this GPU, and check its precision."""
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
    """Print a table of what was built."""
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
