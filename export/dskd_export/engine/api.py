"""Requests and answers of the TensorRT adapters, the same for every version of TensorRT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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
        profiles: one for each range of batches; none if every shape is fixed.
        workspace_bytes: largest scratch memory of a layer; None: TensorRT's own limit, all memory.
        optimization_level: search effort for kernels, 0 to 5.
        tf32: fp32 products may round their factors to ten bits of mantissa.
        version_compatible: the engine also loads in later TensorRT versions.
        hardware: other GPUs that the engine also runs on.
        targets: compute capabilities, for example `sm86`, for a build ahead of time; none: this GPU.
        refit: weights that can be put in later: the same ones, or those of another training.
        strip: leave the weights out of the file.
        dla_core: run what this DLA supports on it, and the rest on the GPU; None: all on the GPU.
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
    """A node that TensorRT's parser does not support.

    Attributes:
        operator: ONNX operator; empty: the file as a whole.
        node: name of the node.
        reason: TensorRT's message.
        damaged: the file is no ONNX at all.
    """

    operator: str
    node: str
    reason: str
    damaged: bool = False


@dataclass(frozen=True)
class DlaPlacement:
    """Placement of the layers of a network for a DLA.

    Attributes:
        on_dla: number of layers on the DLA.
        on_gpu: names of those that fall back to the GPU.
    """

    on_dla: int
    on_gpu: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A built engine.

    Attributes:
        data: the serialized engine.
        timing_cache: kernel timings after the build; None: this TensorRT has no such cache.
        flags: TensorRT's names of the builder flags.
        layers: the list of layers in the build log; empty: none.
        gpu_peak_mb: TensorRT's peak GPU memory during the build; None: not logged.
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
        kind: `memory`: out of memory on the GPU or the machine; `workspace`: no kernel fits into the limit;
            `profile`: an input has no range of shapes; `library`: a library is missing; `other`.
        message: TensorRT's message, one line.
    """

    kind: Literal["memory", "workspace", "profile", "library", "other"]
    message: str


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine; -1 in the shape: set by each call."""

    name: str
    is_input: bool
    dtype: np.dtype[Any]
    shape: Shape


@dataclass(frozen=True)
class Signature:
    """Inputs, outputs and profiles of an engine.

    Attributes:
        tensors: inputs and outputs by name.
        profiles: shapes of each profile.
        scratch_bytes: GPU memory for activations, by profile.
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
