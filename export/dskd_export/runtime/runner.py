"""The Runner protocol: all that comparing, timing and evaluating need of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dskd_export.documents.runner_name import RunnerName

Array = NDArray[np.generic]


@dataclass(frozen=True)
class RunnerFacts:
    """What qualifies a runner's numbers; None: does not apply to it.

    Attributes:
        library: `torch`, `onnxruntime`, `tensorrt` or `tensorrt-rtx`.
        version: of the library.
        provider: `cpu`, `cuda` or `tensorrt`.
        precision: of the model.
        threads: CPU threads of one operator.
        providers: ONNX Runtime's providers in use, the first is the one requested.
        optimizer: False: ONNX Runtime's graph optimizer is off.
        tf32: fp32 products may round their factors.
        gpu: name of the GPU that an engine was built on.
        streams: CUDA streams for concurrent calls.
        cuda_graphs: calls are captured as CUDA graphs.
        device_memory_mb: device memory held after loading, without the weights, 1 MB = 10^6 bytes.
        load_ms: time to load the model.
    """

    library: str
    version: str
    provider: str
    precision: str
    threads: int | None = None
    providers: tuple[str, ...] = ()
    optimizer: bool | None = None
    tf32: bool | None = None
    gpu: str | None = None
    streams: int = 1
    cuda_graphs: bool | None = None
    device_memory_mb: float | None = None
    load_ms: float | None = None


class Runner(Protocol):
    """A model that is ready to be called. Use it as a context manager; it is closed on exit."""

    @property
    def name(self) -> RunnerName:
        """What computes, where and in which precision, for example `onnxruntime:cpu:fp32`."""
        ...

    @property
    def facts(self) -> RunnerFacts:
        """Versions, provider, threads and precision: what qualifies its numbers."""
        ...

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch: input name -> array in, output name -> array out. Blocks until done."""
        ...

    def __enter__(self) -> Runner: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
