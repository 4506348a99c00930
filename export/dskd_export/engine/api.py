"""What building and running need of TensorRT, whatever its version.

An adapter is a `Backend`. It is the only thing that touches TensorRT's module; builder, inspector and
runner know these classes and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

Shape = tuple[int, ...]
# Input name -> smallest shape, the one that kernels are chosen for, and the largest.
Profile = Mapping[str, tuple[Shape, Shape, Shape]]
BackendName = Literal["tensorrt", "tensorrt-rtx"]
Hardware = Literal["none", "ampere-plus", "same-compute-capability"]
Refit = Literal["none", "identical", "new-weights"]


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built.

    Attributes:
        profiles: one for each range of batches; none where every shape is fixed.
        workspace_bytes: most scratch memory that a layer may use; None: TensorRT's own limit, all memory.
        optimization_level: 0 to 5: how long kernels are searched for.
        tf32: fp32 products may round their factors to ten bits of mantissa.
        version_compatible: the engine also loads in later TensorRT versions.
        hardware: GPUs beside this one that the engine may run on.
        targets: compute capabilities, for example `sm86`, for a build ahead of time; none: this GPU.
        refit: whether weights can be put in later: the same ones, or those of another training.
        strip: leave the weights out of the file.
        dla_core: run what can on this DLA, and the rest on the GPU; None: all on the GPU.
    """

    profiles: tuple[Profile, ...] = ()
    workspace_bytes: int | None = None
    optimization_level: int = 3
    tf32: bool = False
    version_compatible: bool = False
    hardware: Hardware = "none"
    targets: tuple[str, ...] = ()
    refit: Refit = "none"
    strip: bool = False
    dla_core: int | None = None


@dataclass(frozen=True)
class Refusal:
    """What TensorRT's parser does not take of a model.

    Attributes:
        operator: ONNX operator; empty where it is the file as a whole.
        node: name of the node.
        reason: TensorRT's words.
        damaged: the file is no ONNX at all.
    """

    operator: str
    node: str
    reason: str
    damaged: bool = False


@dataclass(frozen=True)
class DlaPlacement:
    """Where the layers of a network for a DLA run.

    Attributes:
        on_dla: layers that the DLA takes.
        on_gpu: names of those that fall back to the GPU.
    """

    on_dla: int
    on_gpu: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A built engine.

    Attributes:
        data: what TensorRT serialised.
        timing_cache: what it now knows of the times of kernels; None: it keeps no such cache.
        flags: TensorRT's names of the builder flags that were set.
        layers: what the builder wrote of the engine's layers into its log; empty: nothing.
        gpu_peak_mb: TensorRT's own count of its GPU memory while it built; None: it did not say.
        dla: None without a DLA.
        warnings: of the log, each once.
    """

    data: bytes
    timing_cache: bytes | None = None
    flags: tuple[str, ...] = ()
    layers: str = ""
    gpu_peak_mb: float | None = None
    dla: DlaPlacement | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why no engine was built.

    Attributes:
        kind: `memory`: the GPU or the machine ran out of it; `workspace`: no kernel fits into the limit;
            `profile`: an input has no range of shapes; `library`: a library is missing; `other`.
        message: TensorRT's words, one line.
    """

    kind: Literal["memory", "workspace", "profile", "library", "other"]
    message: str


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine; -1 in the shape: depends on the call."""

    name: str
    is_input: bool
    dtype: np.dtype[Any]
    shape: Shape


@dataclass(frozen=True)
class Signature:
    """What an engine takes and gives.

    Attributes:
        tensors: inputs and outputs by name.
        profiles: what each profile takes.
        scratch_bytes: GPU memory that an execution needs at most, by profile.
    """

    tensors: tuple[Tensor, ...]
    profiles: tuple[Profile, ...]
    scratch_bytes: tuple[int, ...] = field(default=())

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The inputs, in the engine's order."""
        return tuple(tensor for tensor in self.tensors if tensor.is_input)

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The outputs, in the engine's order."""
        return tuple(tensor for tensor in self.tensors if not tensor.is_input)


class Context(Protocol):
    """One execution at a time of an engine. It owns no device memory: the caller gives all of it."""

    def use_profile(self, index: int, stream: int) -> None:
        """Switch to another profile, in the order of the stream."""
        ...

    def set_shape(self, name: str, shape: Shape) -> None:
        """Say how large an input is in the next call."""
        ...

    def shape(self, name: str) -> Shape:
        """Shape of a tensor, once those of all inputs are set."""
        ...

    def bind(self, name: str, address: int) -> None:
        """Where a tensor lies in device memory."""
        ...

    def use_scratch(self, address: int, size_bytes: int) -> None:
        """Device memory for what happens between inputs and outputs."""
        ...

    def can_be_captured(self, stream: int) -> bool:
        """Whether the next call can become a CUDA graph."""
        ...

    def enqueue(self, stream: int) -> None:
        """Start one call on a stream; returns before it is done."""
        ...

    def time_layers(self, times_ms: dict[str, float]) -> None:
        """From now on add the time of every layer to this, by name, in milliseconds."""
        ...


class Engine(Protocol):
    """A loaded engine."""

    @property
    def signature(self) -> Signature:
        """What it takes and gives."""
        ...

    def layers(self, of: Context | None = None) -> str:
        """The inspector's JSON on all layers; with a context whose shapes are set, as they are in it."""
        ...

    def context(self) -> Context:
        """A new execution context; several may run at once, each on a stream of its own."""
        ...


class Backend(Protocol):
    """TensorRT of one generation."""

    @property
    def name(self) -> BackendName:
        """`tensorrt` or `tensorrt-rtx`."""
        ...

    @property
    def version(self) -> str:
        """TensorRT's version."""
        ...

    @property
    def max_opset(self) -> int:
        """The newest ONNX operator set that its parser reads."""
        ...

    @property
    def targets(self) -> tuple[str, ...]:
        """Compute capabilities that it builds for ahead of time; none: only for the GPU that is here."""
        ...

    @property
    def keeps_timing_cache(self) -> bool:
        """Whether the times of kernels can be kept for the next build."""
        ...

    def refused(self, model: bytes, path: Path) -> tuple[Refusal, ...]:
        """Nodes of a model that the parser does not take, before anything is built.

        Args:
            model: the ONNX file.
            path: where it lies: weights beside it are found there.
        """
        ...

    def build(self, model: bytes, path: Path, options: BuildOptions, cache: bytes | None) -> Plan | Failure:
        """Build an engine.

        Args:
            model: the ONNX file.
            path: where it lies: weights beside it are found there.
            options: how.
            cache: a timing cache of this version and device.

        Raises:
            EnvironmentProblem: this generation, or this machine, cannot do what the options ask for.
        """
        ...

    def open(self, plan: bytes, *, host_code: bool = False) -> Engine:
        """Load an engine on the GPU.

        Args:
            plan: the engine.
            host_code: let it run code of its own on the CPU, which a version-compatible engine brings: whoever
                made the engine is then trusted like whoever made a program.

        Raises:
            EnvironmentProblem: TensorRT does not take it, in its words.
        """
        ...

    def refit(self, plan: bytes, model: bytes, path: Path, *, host_code: bool = False) -> bytes:
        """Put the weights of a model into an engine that was built to be refitted; arguments as above.

        Raises:
            EnvironmentProblem: TensorRT does not load the engine.
            ModelError: the model has other weights than the engine asks for.
        """
        ...

    def merge_timing_caches(self, first: bytes, second: bytes) -> bytes:
        """One cache of two of this version; what both know is taken from the first.

        Raises:
            EnvironmentProblem: they are of different devices or versions.
        """
        ...
