"""The models of a validation, each on its provider, ready to be called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dskd_export.bundle import Bundle
from dskd_export.documents.runner_name import RunnerName
from dskd_export.documents.validation import Judgement
from dskd_export.engine.identity import FoundEngine, find_engines, require_engines
from dskd_export.engine.inspect import format_shares, runs_in_its_precision
from dskd_export.errors import EnvironmentProblem, ProviderLacksKernel, UsageError, require
from dskd_export.precision.scoring import emulate_bf16
from dskd_export.runtime.batches import largest_call, logits_of
from dskd_export.runtime.compute_precision import ComputePrecision, find_compute_precision
from dskd_export.runtime.loader import EngineLoader, OnnxLoader
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner, check_provider, list_providers
from dskd_export.runtime.providers import TENSORRT
from dskd_export.runtime.runner import Array, Runner
from dskd_export.settings import ValidateSettings
from dskd_export.spec import ModelSpec

FULL = "fp32"


BATCH = 16
"""Images of one call. Every runner keeps the memory of its largest call, and several are open at a time."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that is open, and what is known of it before it is called.

    Attributes:
        runner: the model on its provider.
        kind: torch, onnxruntime or tensorrt.
        provider: cpu, cuda or tensorrt.
        precision: what the model claims to be.
        native: whether the provider computes in that precision.
        spec: names its input and output.
        size_mb: of its file; None for torch.
        ranges: smallest and largest batch of its calls; empty: it takes any.
        engine_sha256: of an engine.
    """

    runner: Runner
    kind: str
    provider: str
    precision: str
    native: ComputePrecision
    spec: ModelSpec
    size_mb: float | None = None
    ranges: tuple[tuple[int, int], ...] = ()
    engine_sha256: str | None = None

    @property
    def name(self) -> str:
        """For example `onnxruntime:cpu:int8`."""
        return self.runner.name

    def logits(self, inputs_N: Array, batch: int = BATCH) -> NDArray[Any]:
        """Compute logits [N, K] of inputs, in calls of `batch`."""
        names = {"input_name": self.spec.input_name, "output_name": self.spec.output_name}
        return logits_of(self.runner, inputs_N, batch=batch, **names)

    def batch(self, images: int) -> int:
        """Images of one call, where so many are given at once."""
        return largest_call(images, self.ranges) if self.ranges else images

    def batches(self, wanted: Sequence[int]) -> list[int]:
        """Select the batches that are taken as they are; where none is, the closest call."""
        taken = [batch for batch in wanted if self.batch(batch) == batch]
        return taken or [self.batch(max(wanted))]


@dataclass(frozen=True)
class Models:
    """The reference, the candidates, and the models that cannot run here."""

    reference: LoadedModel
    candidates: Sequence[LoadedModel]
    not_run: Sequence[Judgement] = ()

    @property
    def distinct(self) -> tuple[LoadedModel, ...]:
        """All of them, the reference first, which may be a candidate as well."""
        return tuple({model.name: model for model in (self.reference, *self.candidates)}.values())


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


OpenTorch = Callable[[str], LoadedModel]
"""Opens the student in torch on `cpu` or `cuda`."""


def open_models(
    bundle: Bundle,
    engines: Path,
    settings: ValidateSettings,
    stack: ExitStack,
    open_torch: OpenTorch | None = None,
) -> Models:
    """Open the reference and all candidates of a validation; they are closed with the stack.

    A precision that a provider has no kernel for is left out, with the reason, unless it was requested.

    Args:
        bundle: the models.
        engines: folder of the bundle's engines.
        settings: precisions, runners and providers, or the pair.
        stack: closes the models.
        open_torch: None: there is no torch here, and fp32 in ONNX Runtime on the CPU is the reference.

    Raises:
        EnvironmentProblem: a requested provider or engine is missing, or no model can run.
        ProviderLacksKernel: a precision was requested that a provider cannot compute.
        UsageError: the bundle has no such precision, or torch is requested without one.
    """

    def open_named(name: RunnerName) -> LoadedModel:
        kind, provider, precision = name.kind, name.provider, name.precision
        if kind == "tensorrt":
            (found,) = engines_for(engines, bundle, [precision], ["tensorrt"])
            return open_engine(found, bundle.spec, stack)
        if kind == "torch":
            if open_torch is None:
                raise UsageError(
                    f"{name}: a bundle is validated without torch.",
                    "Name runners of onnxruntime or tensorrt, or validate the run folder.",
                )
            return open_torch(provider)
        batches = (*settings.batches, BATCH)
        return open_onnx(bundle, provider, precision, stack, allow_cpu=settings.allow_cpu, batches=batches)

    if settings.pair is not None:
        reference, candidate = map(open_named, settings.pair)
        return Models(reference, [candidate])
    reference = open_named(RunnerName.of("onnxruntime" if open_torch is None else "torch", "cpu", FULL))
    candidates: list[LoadedModel] = []
    not_run: list[Judgement] = []
    if "onnxruntime" in settings.runners:
        providers = named_providers(settings.providers)
        precisions = settings.precisions or in_order(bundle.precisions)
        names = (RunnerName.of("onnxruntime", provider, one) for one in precisions for provider in providers)
        for name in dict.fromkeys(names):
            if name == reference.name:
                candidates.insert(0, reference)
                continue
            try:
                candidates.append(open_named(name))
            except ProviderLacksKernel as error:
                if settings.precisions is not None:
                    raise
                not_run.append(_not_run(bundle, name, error))
    if "tensorrt" in settings.runners:
        found = engines_for(engines, bundle, settings.precisions, settings.runners)
        candidates += [open_engine(one, bundle.spec, stack) for one in found if not one.problem]
        not_run += [_engine_not_run(one) for one in found if one.problem]
    if not candidates:
        raise EnvironmentProblem(
            f"None of the bundle's precisions can be run here: {not_run[0].reason}",
            "Choose a provider that can (--provider), or export another precision.",
        )
    return Models(reference, candidates, not_run)


def open_onnx(
    bundle: Bundle,
    provider: str,
    precision: str,
    stack: ExitStack,
    *,
    allow_cpu: Sequence[str] = (),
    batches: Sequence[int] = (1,),
) -> LoadedModel:
    """Open one model in ONNX Runtime, and find out in which type it is computed.

    Args:
        bundle: the models.
        provider: cpu, cuda or tensorrt.
        precision: of the bundle.
        stack: closes it.
        allow_cpu: operators that may run on the CPU under another provider.
        batches: sizes of the calls to come.

    Raises:
        EnvironmentProblem: the provider is not here.
        ProviderLacksKernel: it cannot compute the precision.
        UsageError: the bundle has no such precision.
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
    return LoadedModel(runner, "onnxruntime", provider, precision, native, bundle.spec, bundle.model_mb(precision))


def engines_for(
    engines: Path, bundle: Bundle, precisions: Sequence[str] | None, runners: Sequence[str]
) -> list[FoundEngine]:
    """The bundle's engines, those that cannot be run here among them.

    Args:
        engines: the folder of engines.
        bundle: that they have to be of.
        precisions: None: all.
        runners: that are requested.

    Raises:
        EnvironmentProblem: nothing but engines is requested, and none can be run here.
    """
    found = find_engines(engines, bundle.sha256, precisions)
    if set(runners) == {"tensorrt"}:
        require_engines(found, str(bundle.folder))
    return found


def open_engine(found: FoundEngine, spec: ModelSpec, stack: ExitStack) -> LoadedModel:
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
    return LoadedModel(
        runner,
        "tensorrt",
        "cuda",
        document.precision,
        native,
        spec,
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


def _not_run(bundle: Bundle, name: RunnerName, error: ProviderLacksKernel) -> Judgement:
    return Judgement(
        runner=name,
        precision=name.precision,
        provider=name.provider,
        verdict="NOT RUN",
        reason=f"model.{name.precision}.onnx: {error.message}",
        size_mb=bundle.model_mb(name.precision),
    )


def _engine_not_run(found: FoundEngine) -> Judgement:
    return Judgement(
        runner=RunnerName.of("tensorrt", "cuda", found.precision),
        precision=found.precision,
        provider="cuda",
        verdict="NOT RUN",
        reason=found.problem,
        size_mb=found.size_mb,
        engine_sha256=found.document.engine_sha256,
    )
