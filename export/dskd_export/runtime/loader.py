"""The models that runners can open, for validating and timing alike: `FINDERS` is the one table of runners.

A loader reads and compiles nothing before it opens its model, and may open it again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from dskd_export.bundle import Bundle
from dskd_export.documents.runner_name import RunnerName
from dskd_export.engine.identity import FoundEngine, find_engines, require_engines
from dskd_export.engine.inspect import format_shares, runs_in_its_precision
from dskd_export.errors import EnvironmentProblem
from dskd_export.runtime.batches import AnyBatch
from dskd_export.runtime.compute_precision import ComputePrecision, find_compute_precision
from dskd_export.runtime.layer_times import ProfiledCalls
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner, check_provider, list_providers
from dskd_export.runtime.onnxruntime_profile import profile_onnx
from dskd_export.runtime.providers import TENSORRT, Shape
from dskd_export.runtime.runner import Array, Runner
from dskd_export.runtime.tensorrt import TensorRtRunner
from dskd_export.runtime.tensorrt_profile import profile_engine
from dskd_export.settings import BenchmarkSettings, ValidateSettings
from dskd_export.spec import ModelSpec

FULL = "fp32"


@dataclass(frozen=True, kw_only=True)
class Loader(ABC):
    """A model on a runner, not opened yet. A runner overrides what differs from a plain model in memory.

    Attributes:
        name: of the runner.
        spec: of the model's input.
        size_mb: of its file, 1 MB = 10^6 bytes; None: there is no file.
        problem: why it cannot run here; empty if it can.
        engine_sha256: of an engine.
        file: named in reasons; empty: the name of the runner.
        takes_streams: it runs concurrent calls, with `infer_many`.
    """

    name: RunnerName
    spec: ModelSpec
    size_mb: float | None = None
    problem: str = ""
    engine_sha256: str | None = None
    file: str = ""
    takes_streams: bool = False

    @abstractmethod
    def open(self, batches: Sequence[int], *, threads: int | None = None, streams: int = 1) -> Runner:
        """Open the model.

        Args:
            batches: sizes of the calls.
            threads: of the CPU; None: all cores of this process.
            streams: concurrent calls.
        """

    def open_any_batch(self, batches: Sequence[int]) -> Runner:
        """Open the model for calls of any size, mostly these."""
        return self.open(batches)

    def refuse_batch(self, batch: int) -> str:
        """Why calls of a batch size cannot be timed; empty if they can."""
        return self.problem

    def find_compute_precision(self, feeds: Mapping[str, Array]) -> ComputePrecision:
        """Find the number type that the model is computed in.

        Args:
            feeds: one input; one image is enough.
        """
        return ComputePrecision(True, "")

    def profile(
        self, feeds: Mapping[str, Array], *, calls: int, warmup_calls: int, threads: int | None = None
    ) -> ProfiledCalls:
        """Time every node or layer of the model, in a separate session.

        Args:
            feeds: one batch.
            calls: that are counted.
            warmup_calls: made before.
            threads: of the CPU; None: all cores of this process.

        Raises:
            EnvironmentProblem: its runner has no profiler here.
            ModelError: the model does not run, or its profile cannot be read.
        """
        raise EnvironmentProblem(
            f"{self.name.kind} is not profiled, only ONNX Runtime and TensorRT engines are.",
            "Benchmark with --runner onnxruntime",
        )


@dataclass(frozen=True, kw_only=True)
class OnnxLoader(Loader):
    """A model for ONNX Runtime.

    Attributes:
        read: gives the ONNX file or its content.
        allow_cpu: operators that may run on the CPU under another provider.
    """

    read: Callable[[], Path | bytes]
    allow_cpu: Sequence[str] = ()

    def open(self, batches: Sequence[int], *, threads: int | None = None, streams: int = 1) -> Runner:
        """See `Loader`; TensorRT's provider builds for these batches."""
        return OnnxRuntimeRunner(
            self.read(),
            provider=self.name.provider,
            threads=threads,
            precision=self.name.precision,
            allow_cpu=self.allow_cpu,
            shapes=profile_shapes(self.spec, batches),
        )

    def find_compute_precision(self, feeds: Mapping[str, Array]) -> ComputePrecision:
        """See `Loader`. TensorRT's engine is one node to ONNX Runtime, whose profile does not see into it."""
        if self.name.provider == TENSORRT.name:
            return ComputePrecision(True, "TensorRT, strongly typed: in the types of the ONNX model")
        if self.name.precision == FULL:
            return ComputePrecision(True, "")
        return find_compute_precision(self.read(), self.name.precision, self.name.provider, feeds)

    def profile(
        self, feeds: Mapping[str, Array], *, calls: int, warmup_calls: int, threads: int | None = None
    ) -> ProfiledCalls:
        """See `Loader`."""
        return profile_onnx(
            self.read(),
            self.name.provider,
            self.name.precision,
            feeds,
            calls=calls,
            warmup_calls=warmup_calls,
            threads=threads,
            allow_cpu=self.allow_cpu,
        )


@dataclass(frozen=True, kw_only=True)
class EngineLoader(Loader):
    """An engine for TensorRT.

    Attributes:
        found: the engine, next to its `build.json`.
    """

    found: FoundEngine
    takes_streams: bool = True

    def open(self, batches: Sequence[int], *, threads: int | None = None, streams: int = 1) -> TensorRtRunner:
        """Load the engine; its own profiles decide the batches."""
        return TensorRtRunner(self.found.path, streams=streams)

    def open_any_batch(self, batches: Sequence[int]) -> AnyBatch:
        """Load the engine for calls of any size."""
        runner = self.open(batches)
        fixed = runner.signature.inputs[0].shape[0]  # without a profile the engine has one batch size
        ranges = [(one.smallest, one.largest) for one in runner.document.profiles]
        return AnyBatch(runner, ranges or [(fixed, fixed)])

    def refuse_batch(self, batch: int) -> str:
        """See `Loader`; the profiles have to take the batch."""
        document = self.found.document
        if self.problem or document.takes(batch):
            return self.problem
        return f"the engine takes batches of {document.batches}; build it with --batch {batch}"

    def find_compute_precision(self, feeds: Mapping[str, Array]) -> ComputePrecision:
        """See `Loader`: as `build` counted it."""
        document = self.found.document
        types = document.truth
        if types is None:
            why = f"strongly typed, in the types of the ONNX model; not counted: {document.no_truth}"
            return ComputePrecision(True, why)
        is_native = runs_in_its_precision(document)
        most = max(types.types, key=lambda share: share.layer_share, default=None)
        other = "" if is_native else "unknown" if most is None else most.type
        return ComputePrecision(is_native, f"{format_shares(types)} ({types.source})", other)

    def profile(
        self, feeds: Mapping[str, Array], *, calls: int, warmup_calls: int, threads: int | None = None
    ) -> ProfiledCalls:
        """See `Loader`."""
        return profile_engine(self.found.path, feeds, calls=calls, warmup_calls=warmup_calls)


ModelSettings = ValidateSettings | BenchmarkSettings
Finder = Callable[[Bundle, Path, ModelSettings], Sequence[Loader]]


def find_onnx(bundle: Bundle, engines: Path, settings: ModelSettings) -> list[Loader]:
    """Find the bundle's models for ONNX Runtime, on each provider.

    Raises:
        EnvironmentProblem: a named provider cannot run here.
        UsageError: the bundle lacks a requested precision.
    """
    precisions = dict.fromkeys(settings.precisions or sort_precisions(bundle.precisions))
    return [
        OnnxLoader(
            name=RunnerName.of("onnxruntime", provider, precision),
            spec=bundle.spec,
            size_mb=bundle.model_mb(precision),
            file=bundle.model_path(precision).name,
            read=lambda precision=precision: bundle.model(precision),  # type: ignore[misc]
            allow_cpu=settings.allow_cpu,
        )
        for precision, provider in product(precisions, select_providers(settings.providers))
    ]


def find_tensorrt(bundle: Bundle, engines: Path, settings: ModelSettings) -> list[Loader]:
    """Find the bundle's engines, those that cannot run here among them.

    Raises:
        EnvironmentProblem: nothing but engines is requested, and none can run here.
    """
    found = find_engines(engines, bundle.sha256, settings.precisions)
    if set(settings.runners) == {"tensorrt"}:
        require_engines(found, str(bundle.folder))
    return [
        EngineLoader(
            name=RunnerName.of("tensorrt", "cuda", one.precision),
            spec=bundle.spec,
            size_mb=one.size_mb,
            problem=one.problem,
            engine_sha256=one.document.engine_sha256,
            found=one,
        )
        for one in found
    ]


FINDERS: dict[str, Finder] = {"onnxruntime": find_onnx, "tensorrt": find_tensorrt}
"""Runner -> what finds its models of a bundle. `dskd_compress` adds torch."""


def find_loaders(
    bundle: Bundle, engines: Path, settings: ModelSettings, more: Mapping[str, Finder] | None = None
) -> list[Loader]:
    """Find the models of a bundle for all requested runners, in the order of the table.

    Args:
        bundle: the models.
        engines: folder of the bundle's engines.
        settings: precisions, runners and providers.
        more: runners before those of the table.
    """
    table = {**(more or {}), **FINDERS}
    return [
        one for kind, find in table.items() if kind in settings.runners for one in find(bundle, engines, settings)
    ]


def sort_precisions(precisions: Iterable[str]) -> list[str]:
    """Sort precisions, fp32 first: it explains what is seen of the others."""
    return sorted(precisions, key=lambda name: (name != FULL, name))


def select_providers(names: Sequence[str]) -> list[str]:
    """Select the providers of ONNX Runtime, each once; `auto` is the CPU and, where it is present, CUDA.

    TensorRT builds an engine for minutes, so it is only used where it is named.

    Raises:
        EnvironmentProblem: one that is named cannot run here.
        UsageError: there is no provider of that name.
    """
    for name in dict.fromkeys(names):
        if name != "auto":
            check_provider(name)
    found = (
        [provider for provider in list_providers() if provider != TENSORRT.name] if name == "auto" else [name]
        for name in names
    )
    return list(dict.fromkeys(name for group in found for name in group))


def profile_shapes(spec: ModelSpec, batches: Sequence[int]) -> Mapping[str, tuple[Shape, Shape, Shape]]:
    """Smallest, usual and largest shape of the input; the usual one is the largest, which takes most time."""
    smallest, largest = spec.input_shape(min(batches)), spec.input_shape(max(batches))
    return {spec.input_name: (smallest, largest, largest)}
