"""The models of a validation, each on its provider, ready to be called."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dskd_export.bundle import Bundle
from dskd_export.documents.runner_name import RunnerName
from dskd_export.documents.validation import Judgement
from dskd_export.engine.found import FoundEngine, find_engines, require_engines
from dskd_export.engine.inspect import format_shares, runs_in_its_precision
from dskd_export.errors import ProviderLacksKernel, require
from dskd_export.precision.emulate import emulate_bf16
from dskd_export.runtime.any_batch import largest_call
from dskd_export.runtime.compute_precision import ComputePrecision, find_compute_precision
from dskd_export.runtime.loader import EngineLoader, OnnxLoader
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner, check_provider, list_providers
from dskd_export.runtime.providers import TENSORRT
from dskd_export.runtime.runner import Runner

FULL = "fp32"


@dataclass(frozen=True)
class Contestant:
    """A model that is open, and what is known of it before it is called.

    Attributes:
        runner: the model on its provider.
        kind: torch, onnxruntime or tensorrt.
        provider: cpu, cuda or tensorrt.
        precision: what the model claims to be.
        native: whether the provider computes in that precision.
        size_mb: of its file; None for torch.
        ranges: smallest and largest batch of its calls; empty: it takes any.
        engine_sha256: of an engine.
    """

    runner: Runner
    kind: str
    provider: str
    precision: str
    native: ComputePrecision
    size_mb: float | None = None
    ranges: tuple[tuple[int, int], ...] = ()
    engine_sha256: str | None = None

    @property
    def name(self) -> str:
        """For example `onnxruntime:cpu:int8`."""
        return self.runner.name

    def batch(self, images: int) -> int:
        """Images of one call, where so many are given at once."""
        return largest_call(images, self.ranges) if self.ranges else images

    def batches(self, wanted: Sequence[int]) -> list[int]:
        """Those of the wanted batches that are taken as they are; where none is, the closest call."""
        taken = [batch for batch in wanted if self.batch(batch) == batch]
        return taken or [self.batch(max(wanted))]


@dataclass(frozen=True)
class Contest:
    """Who is compared: the reference, the candidates, and what could not be run."""

    reference: Contestant
    candidates: Sequence[Contestant]
    not_run: Sequence[Judgement] = ()

    @property
    def all(self) -> tuple[Contestant, ...]:
        """The reference first."""
        return self.reference, *self.candidates


def in_order(precisions: Sequence[str]) -> list[str]:
    """Precisions, fp32 first: it explains what is seen of the others."""
    return sorted(precisions, key=lambda name: (name != FULL, name))


def named_providers(names: Sequence[str]) -> list[str]:
    """Providers to run on, each once; `auto` is the CPU and, where it is present, CUDA.

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


def open_candidates(
    bundle: Bundle,
    wanted: Sequence[tuple[str, str]],
    stack: ExitStack,
    *,
    asked: bool,
    allow_cpu: Sequence[str] = (),
    batches: Sequence[int] = (1,),
) -> tuple[list[Contestant], list[Judgement]]:
    """Open models, and say which cannot be run here; they are closed with the stack.

    Args:
        bundle: the models.
        wanted: precision and provider of each, in the order of the judgements.
        stack: closes them.
        asked: the precisions were named: one that a provider has no kernel for is an error and not left out.
        allow_cpu: operators that may run on the CPU under another provider.
        batches: sizes of the calls to come.

    Raises:
        EnvironmentProblem: a provider that was named is not here.
        ProviderLacksKernel: a precision was asked for that a provider cannot compute.
        UsageError: the bundle has no such precision.
    """
    candidates: list[Contestant] = []
    not_run: list[Judgement] = []
    for precision, provider in dict.fromkeys(wanted):
        try:
            candidates.append(open_onnx(bundle, provider, precision, stack, allow_cpu=allow_cpu, batches=batches))
        except ProviderLacksKernel as error:
            if asked:
                raise
            not_run.append(_not_run(bundle, provider, precision, error))
    return candidates, not_run


def open_onnx(
    bundle: Bundle,
    provider: str,
    precision: str,
    stack: ExitStack,
    *,
    allow_cpu: Sequence[str] = (),
    batches: Sequence[int] = (1,),
) -> Contestant:
    """Open one model in ONNX Runtime, and find out in which type it is computed.

    Raises what `open_candidates` does.
    """
    model = bundle.model(precision)
    native = ComputePrecision(True, "")
    try:
        load = OnnxLoader(lambda: model, bundle.spec, provider, precision, allow_cpu=allow_cpu, batches=batches)
        runner = stack.enter_context(load())
    except ProviderLacksKernel:
        if precision != "bf16":
            raise
        runner, native = _emulated(model, provider, stack)
    # TensorRT's engine is one node to ONNX Runtime, whose profile does not see into it.
    if provider == TENSORRT.name:
        native = ComputePrecision(True, "TensorRT, strongly typed: in the types of the ONNX model")
    elif native.is_native and precision != FULL:
        feeds = {bundle.spec.input_name: bundle.golden().input[:1]}
        native = find_compute_precision(model, precision, provider, feeds)
    return Contestant(runner, "onnxruntime", provider, precision, native, bundle.model_mb(precision))


def engines_for(
    engines: Path, bundle: Bundle, precisions: Sequence[str] | None, runners: Sequence[str]
) -> list[FoundEngine]:
    """The bundle's engines, those that cannot be run here among them.

    Args:
        engines: the folder of engines.
        bundle: that they have to be of.
        precisions: None: all.
        runners: that are asked for.

    Raises:
        EnvironmentProblem: nothing but engines is asked for, and none can be run here.
    """
    found = find_engines(engines, bundle.sha256, precisions)
    if set(runners) == {"tensorrt"}:
        require_engines(found, str(bundle.folder))
    return found


def open_engines(found: Sequence[FoundEngine], stack: ExitStack) -> tuple[list[Contestant], list[Judgement]]:
    """Open the engines that can be run here, and say of the others why not; they are closed with the stack.

    Raises:
        EnvironmentProblem: an engine that is for this machine does not run.
    """
    opened = [open_engine(one, stack) for one in found if not one.problem]
    not_run = [
        Judgement(
            runner=EngineLoader(one.path, one.precision).name,
            precision=one.precision,
            provider="cuda",
            verdict="NOT RUN",
            reason=one.problem,
            size_mb=one.size_mb,
            engine_sha256=one.document.engine_sha256,
        )
        for one in found
        if one.problem
    ]
    return opened, not_run


def open_named_engine(engines: Path, bundle: Bundle, precision: str, stack: ExitStack) -> Contestant:
    """The engine of a precision that was asked for by name.

    Raises:
        EnvironmentProblem: there is none that can be run here.
    """
    (found,) = engines_for(engines, bundle, [precision], ["tensorrt"])
    return open_engine(found, stack)


def open_engine(found: FoundEngine, stack: ExitStack) -> Contestant:
    """Open one engine, for calls of any size; of the types that its layers run in, `build` has told.

    Raises:
        DataError: the engine is damaged.
        EnvironmentProblem: it cannot be run here.
    """
    document = found.document
    runner = stack.enter_context(EngineLoader(found.path, found.precision).open_any_batch())
    truth = document.truth
    if truth is None:
        native = ComputePrecision(
            True, f"strongly typed, in the types of the ONNX model; not counted: {document.no_truth}"
        )
    else:
        is_native = runs_in_its_precision(document)
        most = max(truth.types, key=lambda share: share.layer_share, default=None)
        other = "" if is_native else "unknown" if most is None else most.type
        native = ComputePrecision(is_native, f"{format_shares(truth)} ({truth.source})", other)
    return Contestant(
        runner,
        "tensorrt",
        "cuda",
        document.precision,
        native,
        found.size_mb,
        ranges=runner.ranges,
        engine_sha256=document.engine_sha256,
    )


def _emulated(model: bytes | Path, provider: str, stack: ExitStack) -> tuple[OnnxRuntimeRunner, ComputePrecision]:
    """A bf16 model where no kernel computes bf16: in fp32, rounded to bf16 after every node."""
    onnx = require("onnx", "onnx")
    loaded = onnx.load(model) if isinstance(model, Path) else onnx.load_from_string(model)
    emulated = emulate_bf16(loaded).SerializeToString()
    runner = stack.enter_context(OnnxRuntimeRunner(emulated, provider=provider, precision="bf16"))
    return runner, ComputePrecision(
        False, f"computed in fp32 on {provider}, rounded to bf16 after every node", FULL
    )


def _not_run(bundle: Bundle, provider: str, precision: str, error: ProviderLacksKernel) -> Judgement:
    return Judgement(
        runner=RunnerName.of("onnxruntime", provider, precision),
        precision=precision,
        provider=provider,
        verdict="NOT RUN",
        reason=f"model.{precision}.onnx: {error.message}",
        size_mb=bundle.model_mb(precision),
    )
