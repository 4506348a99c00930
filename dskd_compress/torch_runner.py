"""A Runner over a torch module, the reference of all others: fp32, TF32 off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch
from torch import nn

from dskd_export.documents.runner_name import PROVIDERS, RunnerName
from dskd_export.errors import EnvironmentProblem
from dskd_export.runtime.loader import FULL, Loader
from dskd_export.runtime.runner import Array, RunnerFacts
from dskd_export.spec import ModelSpec


class TorchRunner:
    """Call a classifier with numpy arrays.

    Args:
        model: images BxCxHxW -> logits BxK; put in eval mode.
        device: where it runs; the module is moved there.
        threads: torch threads on the CPU while the runner is open; None leaves them.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        device: str = "cpu",
        threads: int | None = None,
        input_name: str = "input",
        output_name: str = "logits",
    ) -> None:
        self.device = torch.device(device)
        self.model = model.eval().to(self.device, torch.float32)
        self.threads = threads
        self.input_name, self.output_name = input_name, output_name
        self._before: tuple[int, bool, bool] | None = None

    @property
    def name(self) -> RunnerName:
        """`torch:cpu:fp32`."""
        return RunnerName.of("torch", self.device.type, "fp32")

    @property
    def facts(self) -> RunnerFacts:
        """Version, device and threads."""
        return RunnerFacts(
            library="torch",
            version=torch.__version__,
            provider=self.device.type,
            precision="fp32",
            threads=self.threads or torch.get_num_threads(),
            tf32=False,
        )

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; blocks until the logits are in host memory."""
        with torch.inference_mode():
            # A copy of what cannot be written to: torch would warn that it could.
            array = np.require(feeds[self.input_name], requirements=["C", "W"])
            images_BCHW = torch.from_numpy(array).to(self.device)
            logits_BK = self.model(images_BCHW)
        return {self.output_name: logits_BK.float().cpu().numpy()}

    def __enter__(self) -> TorchRunner:
        self._before = (
            torch.get_num_threads(),
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.allow_tf32,
        )
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._before is not None
        threads, matmul_tf32, cudnn_tf32 = self._before
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = matmul_tf32
        torch.backends.cudnn.allow_tf32 = cudnn_tf32


@dataclass(frozen=True, kw_only=True)
class TorchLoader(Loader):
    """A torch module, in fp32, without a file.

    Attributes:
        model: images BxCxHxW -> logits BxK.
    """

    model: nn.Module

    def open(self, batches: Sequence[int], *, threads: int | None = None, streams: int = 1) -> TorchRunner:
        """Open the module, for calls of any size."""
        names = {"input_name": self.spec.input_name, "output_name": self.spec.output_name}
        return TorchRunner(self.model, device=self.name.provider, threads=threads, **names)


def find_torch(model: nn.Module, spec: ModelSpec, providers: Sequence[str]) -> list[Loader]:
    """Find where a module can run: `auto` is the CPU and, where present, CUDA; TensorRT is skipped.

    Args:
        model: images BxCxHxW -> logits BxK.
        spec: of its input.
        providers: requested ones.

    Raises:
        EnvironmentProblem: a named provider is not available to torch here.
    """
    available = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    found: list[str] = []
    for provider in providers:
        if provider in PROVIDERS["torch"] and provider not in available:
            raise EnvironmentProblem(
                f"benchmark.providers names {provider}, which torch lacks here (it has {', '.join(available)}).",
                "Change benchmark.providers, or see: dskd-compress doctor",
            )
        found += available if provider == "auto" else [provider] if provider in available else []
    return [
        TorchLoader(name=RunnerName.of("torch", provider, FULL), spec=spec, model=model)
        for provider in dict.fromkeys(found)
    ]
