"""The models of a validation, each on its provider, ready to be called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dskd_export.bundle import Bundle
from dskd_export.documents import Judgement
from dskd_export.errors import ProviderLacksKernel, require
from dskd_export.precision.emulate import emulate_bf16
from dskd_export.runtime.native import Native, native_of
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner, available_providers, check_provider
from dskd_export.runtime.providers import TENSORRT, Shape
from dskd_export.runtime.runner import Runner
from dskd_export.spec import ModelSpec

FULL = "fp32"


@dataclass(frozen=True)
class Contestant:
    """A model that is open, and what is known of it before it is called.

    Attributes:
        runner: the model on its provider.
        kind: torch or onnxruntime.
        provider: cpu, cuda or tensorrt.
        precision: what the model claims to be.
        native: whether the provider computes in that precision.
        size_mb: of its file; None for torch.
    """

    runner: Runner
    kind: str
    provider: str
    precision: str
    native: Native
    size_mb: float | None = None

    @property
    def name(self) -> str:
        """For example `onnxruntime:cpu:int8`."""
        return self.runner.name


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


def runner_name(provider: str, precision: str) -> str:
    """What ONNX Runtime's runner of these is called."""
    return f"onnxruntime:{provider}:{precision}"


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
        [provider for provider in available_providers() if provider != TENSORRT.name] if name == "auto" else [name]
        for name in names
    )
    return list(dict.fromkeys(name for group in found for name in group))


def profile_shapes(spec: ModelSpec, batches: Sequence[int]) -> Mapping[str, tuple[Shape, Shape, Shape]]:
    """Smallest, usual and largest shape of the input; the usual is the largest, which takes the most time."""
    smallest, largest = spec.input_shape(min(batches)), spec.input_shape(max(batches))
    return {spec.input_name: (smallest, largest, largest)}


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
    native = Native(True, "")
    try:
        runner = stack.enter_context(
            OnnxRuntimeRunner(
                model,
                provider=provider,
                precision=precision,
                allow_cpu=allow_cpu,
                shapes=profile_shapes(bundle.spec, batches),
            )
        )
    except ProviderLacksKernel:
        if precision != "bf16":
            raise
        runner, native = _emulated(model, provider, stack)
    # TensorRT's engine is one node to ONNX Runtime, whose profile does not see into it.
    if provider == TENSORRT.name:
        native = Native(True, "TensorRT, strongly typed: in the types of the ONNX model")
    elif native.native and precision != FULL:
        feeds = {bundle.spec.input_name: bundle.golden().input[:1]}
        native = native_of(model, precision, provider, feeds)
    return Contestant(runner, "onnxruntime", provider, precision, native, bundle.model_mb(precision))


def _emulated(model: bytes | Path, provider: str, stack: ExitStack) -> tuple[OnnxRuntimeRunner, Native]:
    """A bf16 model where no kernel computes bf16: in fp32, rounded to bf16 after every node."""
    onnx = require("onnx", "onnx")
    loaded = onnx.load(model) if isinstance(model, Path) else onnx.load_from_string(model)
    emulated = emulate_bf16(loaded).SerializeToString()
    runner = stack.enter_context(OnnxRuntimeRunner(emulated, provider=provider, precision="bf16"))
    return runner, Native(False, f"computed in fp32 on {provider}, rounded to bf16 after every node")


def _not_run(bundle: Bundle, provider: str, precision: str, error: ProviderLacksKernel) -> Judgement:
    return Judgement(
        runner=runner_name(provider, precision),
        precision=precision,
        provider=provider,
        verdict="NOT RUN",
        reason=f"model.{precision}.onnx: {error.message}",
        size_mb=bundle.model_mb(precision),
    )
