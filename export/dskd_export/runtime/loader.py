"""Loaders: `loader()` opens a model on its runner. Nothing is read or compiled before; it may be called again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dskd_export.documents.runner_name import RunnerName
from dskd_export.runtime.batches import AnyBatch
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner
from dskd_export.runtime.providers import Shape
from dskd_export.runtime.tensorrt import TensorRtRunner
from dskd_export.spec import ModelSpec


@dataclass(frozen=True)
class OnnxLoader:
    """A model for ONNX Runtime.

    Attributes:
        read: gives the ONNX file or its content.
        spec: of the model's input.
        provider: `cpu`, `cuda` or `tensorrt`.
        precision: of the model.
        threads: CPU threads; None: all cores of this process.
        allow_cpu: operators that may run on the CPU under another provider.
        batches: batch sizes of the calls; TensorRT's provider builds for these.
    """

    read: Callable[[], Path | bytes]
    spec: ModelSpec
    provider: str = "cpu"
    precision: str = "fp32"
    threads: int | None = None
    allow_cpu: Sequence[str] = ()
    batches: Sequence[int] = (1,)

    @property
    def name(self) -> RunnerName:
        """For example `onnxruntime:cpu:int8`."""
        return RunnerName.of("onnxruntime", self.provider, self.precision)

    def __call__(self) -> OnnxRuntimeRunner:
        """Open the model in ONNX Runtime."""
        return OnnxRuntimeRunner(
            self.read(),
            provider=self.provider,
            threads=self.threads,
            precision=self.precision,
            allow_cpu=self.allow_cpu,
            shapes=profile_shapes(self.spec, self.batches),
        )


@dataclass(frozen=True)
class EngineLoader:
    """An engine for TensorRT.

    Attributes:
        engine: `model.<precision>.engine`, next to its `build.json`.
        precision: of the engine.
        streams: concurrent calls.
    """

    engine: Path
    precision: str
    streams: int = 1

    @property
    def name(self) -> RunnerName:
        """For example `tensorrt:cuda:fp16`."""
        return RunnerName.of("tensorrt", "cuda", self.precision)

    def __call__(self) -> TensorRtRunner:
        """Load the engine."""
        return TensorRtRunner(self.engine, streams=self.streams)

    def open_any_batch(self) -> AnyBatch:
        """Load the engine for calls of any batch size."""
        runner = self()
        fixed = runner.signature.inputs[0].shape[0]  # without a profile the engine has one batch size
        ranges = [(one.smallest, one.largest) for one in runner.document.profiles]
        return AnyBatch(runner, ranges or [(fixed, fixed)])


def profile_shapes(spec: ModelSpec, batches: Sequence[int]) -> Mapping[str, tuple[Shape, Shape, Shape]]:
    """Smallest, usual and largest shape of the input; the usual one is the largest, which takes most time."""
    smallest, largest = spec.input_shape(min(batches)), spec.input_shape(max(batches))
    return {spec.input_name: (smallest, largest, largest)}
