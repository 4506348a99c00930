"""The models of a validation, each on its provider, ready to be called."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from dskd_compress.config import ValidateSection
from dskd_compress.torch_runner import TorchRunner
from dskd_compress.weights import WeightsInfo
from dskd_export.bundle import Bundle
from dskd_export.documents import Judgement
from dskd_export.errors import EnvironmentProblem, ProviderLacksKernel, UsageError, require
from dskd_export.onnx_from_torch import deployed
from dskd_export.precision.emulate import emulate_bf16
from dskd_export.runtime.native import Native, native_of
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner, available_providers
from dskd_export.runtime.runner import Runner
from dskd_export.spec import ModelSpec

REFERENCE = "torch:cpu:fp32"
_FULL = "fp32"


@dataclass(frozen=True)
class Contestant:
    """A model that is open, and what is known of it before it is called.

    Attributes:
        runner: the model on its provider.
        kind: torch or onnxruntime.
        provider: cpu or cuda.
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


def as_deployed(student: nn.Module, info: WeightsInfo, spec: ModelSpec) -> nn.Module:
    """The student with the bundle's input and output, normalising as it was trained to, whatever the spec says."""
    return deployed(student, spec.model_copy(update={"mean": info.mean, "std": info.std}))


def open_contest(section: ValidateSection, bundle: Bundle, student: nn.Module, stack: ExitStack) -> Contest:
    """Open the reference and the candidates; they are closed with the stack.

    A precision that a provider has no kernel for is left out, with the reason, unless it was asked for.

    Raises:
        EnvironmentProblem: a provider that was named is not here, or nothing can be run.
        ProviderLacksKernel: a precision or a pair was asked for that a provider cannot compute.
        UsageError: the bundle has no such precision, or the pair is of one runner.
    """
    if section.pair is not None:
        if section.pair[0] == section.pair[1]:
            raise UsageError(
                f"{section.pair[0]} cannot be compared with itself.",
                "Name two runners with --pair (validate.pair).",
            )
        reference, candidate = (_open(name, bundle, student, stack) for name in section.pair)
        return Contest(reference, [candidate])
    reference = _open(REFERENCE, bundle, student, stack)
    precisions = section.precisions or sorted(bundle.precisions, key=lambda name: (name != _FULL, name))
    candidates, not_run = [], []
    for precision in dict.fromkeys(precisions):
        for provider in _providers(section):
            name = f"onnxruntime:{provider}:{precision}"
            try:
                candidates.append(_open(name, bundle, student, stack))
            except ProviderLacksKernel as error:
                if section.precisions is not None:
                    raise
                not_run.append(_not_run(name, bundle, error))
    if not candidates:
        raise EnvironmentProblem(
            f"None of the bundle's precisions can be run here: {not_run[0].reason}",
            "Choose a provider that can (--provider), or export another precision.",
        )
    return Contest(reference, candidates, not_run)


def _open(name: str, bundle: Bundle, student: nn.Module, stack: ExitStack) -> Contestant:
    kind, provider, precision = name.split(":")
    if kind == "torch":
        return Contestant(
            stack.enter_context(_torch(provider, precision, student, bundle)),
            kind,
            provider,
            precision,
            Native(True, ""),
        )
    model = bundle.model(precision)
    native = Native(True, "")
    try:
        runner = stack.enter_context(OnnxRuntimeRunner(model, provider=provider, precision=precision))
    except ProviderLacksKernel:
        if precision != "bf16":
            raise
        runner, native = _emulated(model, provider, stack)
    if native.native and precision != _FULL:
        feeds = {bundle.spec.input_name: bundle.golden().input[:1]}
        native = native_of(model, precision, provider, feeds)
    return Contestant(runner, kind, provider, precision, native, _size_mb(bundle, precision))


def _emulated(model: bytes | Path, provider: str, stack: ExitStack) -> tuple[OnnxRuntimeRunner, Native]:
    """A bf16 model where no kernel computes bf16: in fp32, rounded to bf16 after every node."""
    onnx = require("onnx", "onnx")
    loaded = onnx.load(model) if isinstance(model, Path) else onnx.load_from_string(model)
    emulated = emulate_bf16(loaded).SerializeToString()
    runner = stack.enter_context(OnnxRuntimeRunner(emulated, provider=provider, precision="bf16"))
    return runner, Native(False, f"computed in fp32 on {provider}, rounded to bf16 after every node")


def _torch(provider: str, precision: str, student: nn.Module, bundle: Bundle) -> TorchRunner:
    if precision != _FULL:
        raise UsageError(
            f"torch is the reference in fp32; there is no torch:{provider}:{precision}.",
            f"Name torch:{provider}:fp32, or onnxruntime:{provider}:{precision}.",
        )
    if provider == "cuda" and not torch.cuda.is_available():
        raise EnvironmentProblem(
            f"torch {torch.__version__} finds no CUDA device for torch:cuda:fp32.",
            "Name torch:cpu:fp32, or see: dskd-compress doctor",
        )
    spec = bundle.spec
    return TorchRunner(student, device=provider, input_name=spec.input_name, output_name=spec.output_name)


def _providers(section: ValidateSection) -> list[str]:
    """The providers to validate on; `auto` is the CPU and, where it is present, CUDA."""
    named = ([*available_providers()] if name == "auto" else [name] for name in section.providers)
    return list(dict.fromkeys(name for names in named for name in names))


def _size_mb(bundle: Bundle, precision: str) -> float:
    """Of the model, with what lies in the file beside it."""
    model = bundle.model_path(precision).name
    return sum(facts.size for name, facts in bundle.manifest.files.items() if name.startswith(model)) / 1e6


def _not_run(name: str, bundle: Bundle, error: ProviderLacksKernel) -> Judgement:
    _, provider, precision = name.split(":")
    return Judgement(
        runner=name,
        precision=precision,
        provider=provider,
        verdict="NOT RUN",
        reason=f"model.{precision}.onnx: {error.message}",
        size_mb=_size_mb(bundle, precision),
    )
