"""The models of a validation, each on its runner, ready to be called."""

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
from dskd_export.errors import EnvironmentProblem, ProviderLacksKernel, UsageError, require
from dskd_export.precision.scoring import emulate_bf16
from dskd_export.runtime.batches import AnyBatch, largest_call, logits_of
from dskd_export.runtime.compute_precision import ComputePrecision
from dskd_export.runtime.loader import FINDERS, FULL, Loader, OnnxLoader, find_loaders
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner
from dskd_export.runtime.runner import Array, Runner
from dskd_export.settings import ValidateSettings

BATCH = 16
"""Images of one call. Every runner keeps the memory of its largest call, and several are open at a time."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that is open.

    Attributes:
        loader: that opened it.
        runner: the model on its provider.
        native: whether the provider computes in the model's precision.
    """

    loader: Loader
    runner: Runner
    native: ComputePrecision

    @property
    def name(self) -> RunnerName:
        """For example `onnxruntime:cpu:int8`."""
        return self.loader.name

    @property
    def ranges(self) -> Sequence[tuple[int, int]]:
        """Smallest and largest batch of its calls; empty: it takes any."""
        return self.runner.ranges if isinstance(self.runner, AnyBatch) else ()

    def logits(self, inputs_N: Array, batch: int = BATCH) -> NDArray[Any]:
        """Compute logits [N, K] of inputs, in calls of `batch`."""
        spec = self.loader.spec
        return logits_of(
            self.runner, inputs_N, batch=batch, input_name=spec.input_name, output_name=spec.output_name
        )

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


def open_models(
    bundle: Bundle,
    engines: Path,
    settings: ValidateSettings,
    stack: ExitStack,
    load_torch: Callable[[str], Loader] | None = None,
) -> Models:
    """Open the reference and all candidates of a validation; they are closed with the stack.

    A precision that a provider has no kernel for is left out, with the reason, unless it was requested.

    Args:
        bundle: the models.
        engines: folder of the bundle's engines.
        settings: precisions, runners and providers, or the pair.
        stack: closes the models.
        load_torch: provider -> the student in torch; None: there is no torch here, and fp32 in ONNX Runtime on the
            CPU is the reference.

    Raises:
        EnvironmentProblem: a requested provider or engine is missing, or no model can run.
        ProviderLacksKernel: a precision was requested that a provider cannot compute.
        UsageError: the bundle has no such precision, or torch is requested without one.
    """

    def open_named(name: RunnerName) -> LoadedModel:
        if name.kind != "torch":
            one = {"runners": (name.kind,), "providers": (name.provider,), "precisions": (name.precision,)}
            (loader,) = FINDERS[name.kind](bundle, engines, settings.model_copy(update=one))
        elif load_torch is not None:
            loader = load_torch(name.provider)
        else:
            raise UsageError(
                f"{name}: a bundle is validated without torch.",
                "Name runners of onnxruntime or tensorrt, or validate the run folder.",
            )
        return open_model(loader, bundle, settings.batches, stack)

    if settings.pair is not None:
        reference, candidate = map(open_named, settings.pair)
        return Models(reference, [candidate])
    reference = open_named(RunnerName.of("onnxruntime" if load_torch is None else "torch", "cpu", FULL))
    candidates: list[LoadedModel] = []
    not_run: list[Judgement] = []
    for loader in find_loaders(bundle, engines, settings):
        if loader.name == reference.name:
            candidates.insert(0, reference)
        elif loader.problem:
            not_run.append(_judge_not_run(loader, loader.problem))
        else:
            try:
                candidates.append(open_model(loader, bundle, settings.batches, stack))
            except ProviderLacksKernel as error:
                if settings.precisions is not None:
                    raise
                not_run.append(_judge_not_run(loader, f"{loader.file}: {error.message}"))
    if not candidates:
        raise EnvironmentProblem(
            f"None of the bundle's precisions can be run here: {not_run[0].reason}",
            "Choose a provider that can (--provider), or export another precision.",
        )
    return Models(reference, candidates, not_run)


def open_model(loader: Loader, bundle: Bundle, batches: Sequence[int], stack: ExitStack) -> LoadedModel:
    """Open one model for calls of any size, and find the type that it is computed in.

    Args:
        loader: of the model.
        bundle: for an input.
        batches: sizes of the calls to come.
        stack: closes it.

    Raises:
        DataError: an engine is damaged.
        EnvironmentProblem: it cannot run here.
        ProviderLacksKernel: the provider cannot compute the precision.
        UsageError: the bundle has no such precision.
    """
    try:
        runner = stack.enter_context(loader.open_any_batch((*batches, BATCH)))
    except ProviderLacksKernel:
        if loader.name.precision != "bf16" or not isinstance(loader, OnnxLoader):
            raise
        runner = stack.enter_context(_open_emulated(loader))
        how = f"computed in fp32 on {loader.name.provider}, rounded to bf16 after every node"
        return LoadedModel(loader, runner, ComputePrecision(False, how, FULL))
    feeds = {bundle.spec.input_name: bundle.golden().input[:1]}
    return LoadedModel(loader, runner, loader.find_compute_precision(feeds))


def _open_emulated(loader: OnnxLoader) -> OnnxRuntimeRunner:
    """Open a bf16 model where no kernel computes bf16: in fp32, rounded to bf16 after every node."""
    onnx, model = require("onnx", "onnx"), loader.read()
    loaded = onnx.load(model) if isinstance(model, Path) else onnx.load_from_string(model)
    emulated = emulate_bf16(loaded).SerializeToString()
    return OnnxRuntimeRunner(emulated, provider=loader.name.provider, precision="bf16")


def _judge_not_run(loader: Loader, reason: str) -> Judgement:
    return Judgement(
        runner=loader.name,
        precision=loader.name.precision,
        provider=loader.name.provider,
        verdict="NOT RUN",
        reason=reason,
        size_mb=loader.size_mb,
        engine_sha256=loader.engine_sha256,
    )
