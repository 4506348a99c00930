"""Build `model.<precision>.engine` and `model.<precision>.build.json` from a bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dskd_export import __version__, codes
from dskd_export.bundle import Bundle
from dskd_export.documents.precision import QUANTIZED
from dskd_export.engine.api import BackendName, BuildOptions, Profile, Refit
from dskd_export.engine.device import find_gpu, index_of, refuse_full_disk, system
from dskd_export.engine.document import (
    BuildDocument,
    DlaFacts,
    GpuFacts,
    LayerPrecisions,
    ProfileFacts,
    document_path,
    engine_path,
)
from dskd_export.engine.generations import builder_for, targets_of
from dskd_export.engine.inspect import layers_of_log, summarize_layers
from dskd_export.engine.process import BuildOutcome, BuildRequest, run_in_child_process
from dskd_export.engine.versions import format_targets
from dskd_export.errors import EnvironmentProblem, UsageError
from dskd_export.files.atomic import sha256_bytes, write_atomic
from dskd_export.settings import BuildSettings
from dskd_export.spec import ModelSpec
from dskd_export.telemetry.host import device_name

_FIRST_RUNG_BYTES = 4 * 1024**3
Run = Callable[[BuildRequest], BuildOutcome]


@dataclass(frozen=True)
class BuildTarget:
    """What one build is for; unlike `BuildSettings` none of this is kept in a recipe.

    Attributes:
        backend: `tensorrt`, `tensorrt-rtx`, or `auto`: the first that is installed.
        device: `auto`, `cuda` or `cuda:1`.
        targets: compute capabilities (`sm86`) to build for ahead of time; none: the GPU of this machine.
        strip: build without weights, to refit later: `identical` ones, or `new-weights` of another training.
        dla_core: DLA of a Jetson Orin that runs the layers it supports.
        timing_cache_sha256: required content of the device's timing cache, to repeat an earlier build.
    """

    backend: BackendName | Literal["auto"] = "auto"
    device: str = "auto"
    targets: tuple[str, ...] = ()
    strip: Refit = "none"
    dla_core: int | None = None
    timing_cache_sha256: str | None = None


def profiles_of(spec: ModelSpec, batches: Sequence[int], *, fixed: bool = False) -> tuple[Profile, ...]:
    """Make one optimization profile for each batch size, reaching down to the next smaller one.

    So every batch up to the largest is supported, by kernels tuned for the next larger of `batches`.

    Args:
        spec: of the model's input; height and width are the spec's.
        batches: at least one, in any order.
        fixed: one size only, for devices that take no ranges.

    Raises:
        UsageError: there are none, or one is below 1.
    """
    sizes = sorted(set(batches))
    if not sizes or sizes[0] < 1:
        raise UsageError("--batch needs at least one whole number from 1.", "For example: --batch 1,8")
    lowest = sizes if fixed else [1, *(size + 1 for size in sizes)]
    return tuple(
        {spec.input_name: (spec.input_shape(low), spec.input_shape(size), spec.input_shape(size))}
        for low, size in zip(lowest, sizes, strict=False)
    )


def build_engine(
    bundle: Bundle,
    precision: str,
    engines: Path,
    settings: BuildSettings,
    target: BuildTarget = BuildTarget(),
    *,
    run: Run = run_in_child_process,
) -> tuple[Path, BuildDocument]:
    """Build one engine and write it with its document; on an error nothing is written.

    Args:
        bundle: a verified bundle.
        precision: of it.
        engines: folder of engines; the device's folder is made in it.
        settings: how.
        target: what for.
        run: runs the request; by default in a child process.

    Returns:
        The engine's path and its document, with the types of its layers if the build log lists them.

    Raises:
        BundleError: the model was altered since the bundle was opened.
        DataError: the timing cache is not the one that the build is pinned to.
        EnvironmentProblem: this machine or this TensorRT version cannot build it.
        ModelError: TensorRT does not support the model; names operator and node.
        UsageError: the settings contradict each other, or the bundle lacks the precision.
    """
    model = bundle.model(precision)
    gpu, backend = _choose_gpu_and_backend(target)
    if target.dla_core is not None and len(settings.batches) != 1:
        raise UsageError("A DLA supports one batch size per engine.", "For example: --batch 8")
    targets = tuple(dict.fromkeys(target.targets))
    device = device_name(gpu.name) if gpu is not None and not targets else "-".join(targets)
    options = BuildOptions(
        profiles=profiles_of(bundle.spec, settings.batches, fixed=target.dla_core is not None),
        workspace_bytes=None if settings.workspace_mb is None else round(settings.workspace_mb * 1e6),
        optimization_level=settings.optimization_level,
        tf32=settings.tf32,
        version_compatible=settings.version_compatible,
        hardware=settings.hardware,
        targets=targets,
        refit=target.strip,
        strip=target.strip != "none",
        dla_core=target.dla_core,
    )
    path = engine_path(engines / device, precision, stripped=options.strip)
    refuse_full_disk(path.parent, bundle.model_mb(precision))
    with tempfile.TemporaryDirectory(prefix="dskd-build-") as name:
        request = BuildRequest(
            backend=backend,
            model=write_model_file(model, precision, Path(name)),
            plan=Path(name) / "plan",
            precision=precision,
            options=options,
            first_rung_bytes=_FIRST_RUNG_BYTES if gpu is None else round(gpu.memory_mb * 1e6) // 2,
            cache_folder=path.parent,
            cache_sha256=target.timing_cache_sha256,
            device=index_of(target.device),
        )
        done = run(request)
        plan = request.plan.read_bytes()
    document = _document(bundle, precision, options, done, plan, None if targets else gpu)
    write_engine(path, plan, document)
    return path, document


def _choose_gpu_and_backend(target: BuildTarget) -> tuple[GpuFacts | None, BackendName]:
    """Find the GPU, if there is one, and choose the TensorRT to build with."""
    gpu = find_gpu(index_of(target.device))
    backend = builder_for(target.backend, target.targets)
    if gpu is None and not target.targets:
        if ahead := targets_of(backend):
            raise EnvironmentProblem(
                "This machine has no NVIDIA GPU to build for.",
                f"Build ahead of time: {format_targets(ahead)}",
            )
        raise EnvironmentProblem(
            "This machine has no NVIDIA GPU, and TensorRT builds on the GPU that runs the engine.",
            "Copy the bundle to the device and build there: dskd-compress build BUNDLE",
            code=codes.GPU,
        )
    if gpu is None and target.strip != "none":
        raise EnvironmentProblem(
            "A stripped engine cannot be built without a GPU.",
            "Build it on the device, or remove --stripWeights.",
        )
    return gpu, backend


def write_model_file(model: bytes | Path, precision: str, folder: Path) -> Path:
    """Write the verified ONNX content to a file; a model with external weights stays where it is."""
    if isinstance(model, Path):
        return model
    path = folder / f"model.{precision}.onnx"
    path.write_bytes(model)
    return path


def _document(
    bundle: Bundle, precision: str, options: BuildOptions, done: BuildOutcome, plan: bytes, gpu: GpuFacts | None
) -> BuildDocument:
    (name,) = {name for profile in options.profiles for name in profile}
    name_of_model = bundle.model_path(precision).name
    truth, no_truth = _truth_of_log(done)
    return BuildDocument(
        backend=done.backend,
        version=done.version,
        dskd_compress=__version__,
        system=system(),
        gpu=gpu,
        targets=list(options.targets) or ([gpu.target] if gpu is not None and targets_of(done.backend) else []),
        precision=precision,
        rest=_rest_of(bundle, precision),
        opset=done.opset,
        profiles=[
            ProfileFacts(smallest=low[0], best=best[0], largest=high[0])
            for low, best, high in (profile[name] for profile in options.profiles)
        ],
        flags=list(done.flags),
        optimization_level=options.optimization_level,
        hardware=options.hardware,
        version_compatible=options.version_compatible,
        refit=options.refit,
        stripped=options.strip,
        workspace_mb=None if done.workspace_bytes is None else done.workspace_bytes / 1e6,
        workspace_tried_mb=[size / 1e6 for size in done.workspace_tried_bytes],
        timing_cache=done.timing_cache,
        no_timing_cache="" if done.timing_cache else f"{done.backend} keeps none",
        dla=None
        if done.dla is None
        else DlaFacts(core=options.dla_core or 0, layers_on_dla=done.dla[0], layers_on_gpu=done.dla[1]),
        build_seconds=done.seconds,
        peak_memory_mb=done.peak_memory_mb,
        gpu_peak_memory_mb=done.gpu_peak_mb,
        gpu_peak_memory_unknown=""
        if done.gpu_peak_mb
        else ("it was built without a GPU" if gpu is None else "TensorRT's log lists no peak"),
        engine_bytes=len(plan),
        engine_sha256=sha256_bytes(plan),
        bundle_sha256=bundle.sha256,
        model_sha256=bundle.manifest.files[name_of_model].sha256,
        warnings=list(done.warnings),
        truth=truth,
        no_truth=no_truth,
    )


def _truth_of_log(done: BuildOutcome) -> tuple[LayerPrecisions | None, str]:
    layers = layers_of_log(done.layers)
    if not layers:
        return None, "the build log does not list the layers; the engine has not been inspected"
    return summarize_layers(layers, source="build log", not_timed="it has not run yet"), ""


def _rest_of(bundle: Bundle, precision: str) -> str:
    """Type of the layers that were not quantized; fp32 unless the manifest names another."""
    if precision not in QUANTIZED:
        return "fp32"
    rest = bundle.manifest.models[precision].details.get("rest", "fp32")
    return str(rest)


def write_engine(path: Path, plan: bytes, document: BuildDocument) -> None:
    """Write an engine, then its document: a document without its engine would describe another one."""
    refuse_full_disk(path.parent, len(plan) / 1e6)
    write_atomic(path, plan)
    write_document(path, document)


def write_document(engine: Path, document: BuildDocument) -> None:
    """Write the document next to its engine."""
    write_atomic(document_path(engine), document.model_dump_json(indent=2) + "\n")
