"""`model.<precision>.build.json`: what is known of the engine next to it, and where both are stored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field

from dskd_export.documents.base import Document
from dskd_export.errors import UsageError

_ENGINE = re.compile(r"model\.([a-z0-9]+)(\.stripped)?\.engine")
BUNDLE_IN_RUN = "bundle"
_BESIDE_BUNDLE = ".engines"


class ProfileFacts(Document):
    """Batches that one optimization profile supports."""

    smallest: int
    best: int = Field(description="that its kernels are tuned for")
    largest: int


class GpuFacts(Document):
    """The GPU that an engine was built on."""

    name: str
    compute_capability: str = Field(description="for example 8.7")
    memory_mb: float = Field(description="1 MB = 10^6 bytes")
    driver: str | None = Field(description="None: unknown")
    cuda: str = Field(description="newest CUDA version that the driver supports, for example 12.6")

    @property
    def target(self) -> str:
        """The compute capability as TensorRT-RTX names it: `sm87`."""
        return f"sm{self.compute_capability.replace('.', '')}"


class TimingCacheFacts(Document):
    """The timing cache that a build read and wrote."""

    file: str = Field(description="next to the engine")
    sha256_before: str | None = Field(description="None: the build started without one")
    sha256_after: str


class DlaFacts(Document):
    """What runs on a DLA, and what falls back to the GPU."""

    core: int
    layers_on_dla: int
    layers_on_gpu: list[str]


class TypeShare(Document):
    """Layers that run in one number type."""

    type: str = Field(description="fp32, fp16, bf16, int8, fp8, ...")
    layers: int
    layer_share: float = Field(description="of all layers with a type, a fraction")
    time_share: float | None = Field(description="of the time of all layers, a fraction; None: not timed")


class LayerPrecisions(Document):
    """Number types that the layers of an engine run in."""

    source: Literal["inspector", "build log"]
    layers: int = Field(description="that have a type")
    untyped_layers: int = Field(description="without number tensors, for example shape computations")
    types: list[TypeShare] = Field(description="most time, or most layers, first")
    reformat_layers: list[str] = Field(description="that only change type or memory layout, by name")
    reformat_layer_share: float
    reformat_time_share: float | None
    not_timed: str = Field(default="", description="why there is no time")


class BuildDocument(Document):
    """What built an engine, for what, and from what."""

    schema_version: Literal[1] = 1
    backend: Literal["tensorrt", "tensorrt-rtx"]
    version: str = Field(description="of TensorRT")
    dskd_compress: str
    system: str = Field(description="operating system and processor")
    gpu: GpuFacts | None = Field(description="None: built ahead of time for `targets`")
    targets: list[str] = Field(description="compute capabilities it was built for; empty: that of the GPU")
    precision: str = Field(description="of the model in the bundle")
    rest: str = Field(description="type of the layers that were not quantized")
    opset: int
    profiles: list[ProfileFacts] = Field(description="empty: the model has one batch size only")
    flags: list[str] = Field(description="TensorRT's builder flags that were set")
    optimization_level: int
    hardware: str = Field(description="level of hardware compatibility")
    version_compatible: bool
    refit: str = Field(description="weights that a refit accepts: none, identical or new-weights")
    stripped: bool = Field(description="it has no weights and runs only after a refit")
    refitted_from: str | None = Field(default=None, description="sha256 of the stripped engine")
    workspace_mb: float | None = Field(description="limit of a layer's scratch memory; None: TensorRT's own")
    workspace_tried_mb: list[float] = Field(
        default_factory=list, description="larger limits that the memory was too short for"
    )
    timing_cache: TimingCacheFacts | None
    no_timing_cache: str = Field(default="", description="why there is none")
    dla: DlaFacts | None = None
    build_seconds: float
    peak_memory_mb: float = Field(description="of the building process, resident in host memory")
    gpu_peak_memory_mb: float | None = Field(description="of TensorRT's allocators while it built")
    gpu_peak_memory_unknown: str = Field(default="", description="why it is not known")
    engine_bytes: int
    engine_sha256: str
    bundle_sha256: str
    model_sha256: str = Field(description="of the ONNX file")
    warnings: list[str] = Field(default_factory=list, description="of TensorRT's log")
    truth: LayerPrecisions | None = None
    no_truth: str = Field(default="", description="why the number types of its layers are not known")

    def takes(self, batch: int) -> bool:
        """Whether one of its profiles supports this batch size."""
        return not self.profiles or any(one.smallest <= batch <= one.largest for one in self.profiles)

    @property
    def batches(self) -> str:
        """Batches of its profiles, for people: `1, 2 to 8`."""
        return ", ".join(
            str(one.smallest) if one.smallest == one.largest else f"{one.smallest} to {one.largest}"
            for one in self.profiles
        )


def engines_folder(source: Path) -> Path:
    """Return the engines folder of a run or a bundle; the bundle holds only what its manifest lists.

    Args:
        source: a run folder, or the folder of a bundle.
    """
    if (source / BUNDLE_IN_RUN).is_dir():
        return source / "engines"
    resolved = source.resolve()
    if resolved.name == BUNDLE_IN_RUN and (resolved.parent / "recipe.yaml").is_file():
        return source.parent / "engines" if source.name == BUNDLE_IN_RUN else resolved.parent / "engines"
    return source.with_name(f"{resolved.name}{_BESIDE_BUNDLE}")


def source_of(engine: Path) -> Path:
    """Return the run or the bundle of an engine, by its path."""
    engines = engine.parent.parent
    if engines.name.endswith(_BESIDE_BUNDLE):
        return engines.with_name(engines.name.removesuffix(_BESIDE_BUNDLE))
    return engines.parent


def engine_path(folder: Path, precision: str, *, stripped: bool = False) -> Path:
    """Return the path of an engine in the folder of a device."""
    return folder / f"model.{precision}{'.stripped' if stripped else ''}.engine"


def document_path(engine: Path) -> Path:
    """Return the path of the document next to an engine.

    Raises:
        UsageError: the file is not named like an engine.
    """
    if not _ENGINE.fullmatch(engine.name):
        raise UsageError(
            f"{engine} is not named model.<precision>.engine.",
            "Use an engine that dskd-compress build wrote, under its own name.",
        )
    return engine.with_name(f"{engine.name.removesuffix('.engine')}.build.json")


def document_beside(engine: Path) -> Path | None:
    """Find the document next to an engine; None for an engine of another tool."""
    if not _ENGINE.fullmatch(engine.name):
        return None
    path = document_path(engine)
    return path if path.is_file() else None


class BuiltEngine(Document):
    """An engine that `build` wrote."""

    path: str
    build: BuildDocument


class BuildReport(Document):
    """What `build --json` prints."""

    engines: list[BuiltEngine]
    failed: list[str] = Field(description="engines that do not run in their precision")
