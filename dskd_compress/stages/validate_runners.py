"""Who is compared where torch is the reference."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import torch
from torch import nn

from dskd_compress.torch_runner import TorchRunner
from dskd_compress.weights import WeightsInfo
from dskd_export.bundle import Bundle
from dskd_export.documents.runner_name import RunnerName
from dskd_export.documents.validation import Judgement
from dskd_export.errors import EnvironmentProblem, UsageError
from dskd_export.onnx_from_torch import deployed
from dskd_export.runtime.compute_precision import ComputePrecision
from dskd_export.settings import ValidateSettings
from dskd_export.spec import ModelSpec
from dskd_export.validation.candidates import (
    FULL,
    Contest,
    Contestant,
    engines_for,
    in_order,
    named_providers,
    open_candidates,
    open_engines,
    open_named_engine,
    open_onnx,
)
from dskd_export.validation.judgement import BATCH

REFERENCE = RunnerName("torch:cpu:fp32")


def as_deployed(student: nn.Module, info: WeightsInfo, spec: ModelSpec) -> nn.Module:
    """The student with the bundle's input and output, normalising as it was trained to, whatever the spec says."""
    return deployed(student, spec.model_copy(update={"mean": info.mean, "std": info.std}))


def open_contest(
    section: ValidateSettings, bundle: Bundle, engines: Path, student: nn.Module, stack: ExitStack
) -> Contest:
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
        reference, candidate = (_open(name, section, bundle, engines, student, stack) for name in section.pair)
        return Contest(reference, [candidate])
    reference = _open(REFERENCE, section, bundle, engines, student, stack)
    candidates: list[Contestant] = []
    not_run: list[Judgement] = []
    if "onnxruntime" in section.runners:
        providers = named_providers(section.providers)
        precisions = section.precisions or in_order(bundle.precisions)
        candidates, not_run = open_candidates(
            bundle,
            [(precision, provider) for precision in precisions for provider in providers],
            stack,
            asked=section.precisions is not None,
            allow_cpu=section.allow_cpu,
            batches=(*section.batches, BATCH),
        )
    if "tensorrt" in section.runners:
        found = engines_for(engines, bundle, section.precisions, section.runners)
        opened, refused = open_engines(found, stack)
        candidates, not_run = [*candidates, *opened], [*not_run, *refused]
    if not candidates:
        raise EnvironmentProblem(
            f"None of the bundle's precisions can be run here: {not_run[0].reason}",
            "Choose a provider that can (--provider), or export another precision.",
        )
    return Contest(reference, candidates, not_run)


def _open(
    name: RunnerName,
    section: ValidateSettings,
    bundle: Bundle,
    engines: Path,
    student: nn.Module,
    stack: ExitStack,
) -> Contestant:
    kind, provider, precision = name.kind, name.provider, name.precision
    if kind == "torch":
        runner = stack.enter_context(_torch(provider, precision, student, bundle))
        return Contestant(runner, kind, provider, precision, ComputePrecision(True, ""))
    if kind == "tensorrt":
        return open_named_engine(engines, bundle, precision, stack)
    batches = (*section.batches, BATCH)
    return open_onnx(bundle, provider, precision, stack, allow_cpu=section.allow_cpu, batches=batches)


def _torch(provider: str, precision: str, student: nn.Module, bundle: Bundle) -> TorchRunner:
    if precision != FULL:
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
