"""The source of a benchmark's torch rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from dskd_compress.torch_runner import TorchRunner
from dskd_export.benchmark.cells import Role
from dskd_export.errors import EnvironmentProblem
from dskd_export.runtime.providers import TENSORRT
from dskd_export.runtime.runner import Runner
from dskd_export.spec import ModelSpec
from dskd_export.validation.candidates import FULL


@dataclass(frozen=True)
class TorchSource:
    """A torch module as a `ModelSource`: in fp32, without a file.

    Attributes:
        role: teacher or student.
        spec: of the input.
        model: images BxCxHxW -> logits BxK.
    """

    role: Role
    spec: ModelSpec
    model: nn.Module
    runner: str = "torch"
    sizes_mb: Mapping[str, float | None] = field(default_factory=lambda: {FULL: None})

    def select_providers(self, names: Sequence[str]) -> list[str]:
        """Resolve `auto` to the CPU and, where present, CUDA; TensorRT is ONNX Runtime's alone.

        Raises:
            EnvironmentProblem: a named provider is not available to torch here.
        """
        available = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
        selected: list[str] = []
        for name in names:
            if name not in ("auto", TENSORRT.name, *available):
                raise EnvironmentProblem(
                    f"benchmark.providers names {name}, which torch lacks here (it has {', '.join(available)}).",
                    "Change benchmark.providers, or see: dskd-compress doctor",
                )
            selected += available if name == "auto" else [name] if name in available else []
        return list(dict.fromkeys(selected))

    def open(self, precision: str, provider: str, batch: int, threads: int | None) -> Runner:
        """Open the module, in fp32, for calls of any size."""
        return TorchRunner(self.model, device=provider, threads=threads)
