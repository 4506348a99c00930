"""One CUDA stream of a TensorRT engine: its buffers, execution contexts and CUDA graphs.

A stream has pinned host memory, device memory for inputs and outputs, and activation memory that all its contexts
share, because only one call runs on it at a time. The second call of a shape is captured as a CUDA graph: copy in,
engine, copy out. A graph belongs to the state of its context, so each shape has a separate context. Without
graphs one context switches between the profiles.

CUDA graphs: https://docs.nvidia.com/deeplearning/tensorrt/latest/performance/best-practices.html
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from dskd_export.engine.api import Shape, Signature, Tensor
from dskd_export.engine.loaded import LoadedContext, LoadedEngine
from dskd_export.errors import DskdError
from dskd_export.runtime.cuda import Cuda, array_at
from dskd_export.runtime.runner import Array

_ALIGNMENT = 256
MAX_CONTEXTS = 16
"""Contexts, and with them graphs, that a stream keeps at a time."""

Shapes = tuple[Shape, ...]


@dataclass
class Buffer:
    """Memory of one tensor: pinned host memory and device memory."""

    host: int
    device: int
    size_bytes: int


@dataclass
class PreparedContext:
    """An execution context, and the call that it is prepared for.

    Attributes:
        shapes: of the inputs; None: not prepared yet.
        bound: the stream's count of reallocations when the tensor addresses were set.
        graph: the captured call.
        warm: it has run with these shapes and addresses.
    """

    context: LoadedContext
    profile: int | None = None
    shapes: Shapes | None = None
    bound: int = -1
    graph: Any = None
    warm: bool = False


class ExecutionStream:
    """Run an engine on one CUDA stream. Close it after the last call.

    Args:
        cuda: the device.
        engine: the engine.
        signature: of the engine.
        graphs: capture each shape once as a CUDA graph and launch that.

    Raises:
        EnvironmentProblem: the GPU has too little memory.
    """

    def __init__(self, cuda: Cuda, engine: LoadedEngine, signature: Signature, *, graphs: bool) -> None:
        self._cuda = cuda
        self._engine = engine
        self._signature = signature
        self._graphs = graphs
        self._closing = contextlib.ExitStack()
        self._buffers: dict[str, Buffer] = {}
        self._reallocations = 0  # how often a tensor got new memory
        self._contexts: dict[Shapes | None, PreparedContext] = {}
        self._current: PreparedContext | None = None
        with contextlib.ExitStack() as undo:
            self._stream = cuda.make_stream()
            undo.callback(cuda.destroy_stream, self._stream)
            self._scratch = cuda.allocate(self._scratch_bytes)
            undo.callback(cuda.release, self._scratch)
            self._closing = undo.pop_all()

    @property
    def device_memory_bytes(self) -> int:
        """Device memory in use now."""
        return self._scratch_bytes + sum(buffer.size_bytes for buffer in self._buffers.values())

    @property
    def _scratch_bytes(self) -> int:
        """Enough activation memory for every profile, so that switching allocates nothing."""
        largest = max(self._signature.scratch_bytes, default=0)
        return max(_ALIGNMENT, math.ceil(largest / _ALIGNMENT) * _ALIGNMENT)

    def start(self, feeds: Mapping[str, Array], shapes: Shapes, profile: int) -> None:
        """Start a call; its inputs are copied before this returns.

        Args:
            feeds: input name -> array, of the engine's types.
            shapes: of the inputs, in the engine's order.
            profile: one that supports them.
        """
        prepared = self._current = self.prepare(shapes, profile)
        self._fill(prepared, feeds)
        self._capture(prepared)
        if prepared.graph is None:
            self._enqueue(prepared)
        else:
            self._cuda.launch(prepared.graph, self._stream)
        prepared.warm = True

    def finish(self) -> dict[str, Array]:
        """Wait for the last call and return its outputs."""
        self._cuda.wait(self._stream)
        assert self._current is not None
        return {tensor.name: self._host(self._current, tensor).copy() for tensor in self._signature.outputs}

    def time_parts(self, feeds: Mapping[str, Array], shapes: Shapes, profile: int) -> dict[str, float]:
        """Time the steps of one call without a graph, in milliseconds.

        `host_to_device`, `device` and `device_to_host` by events on the stream; `enqueue` by the wall clock: the
        CPU time to launch the engine.
        """
        prepared = self.prepare(shapes, profile)
        with contextlib.ExitStack() as undo:
            events = []
            for _ in range(4):
                events.append(self._cuda.make_event())
                undo.callback(self._cuda.destroy_event, events[-1])
            self._fill(prepared, feeds)
            self._cuda.mark(events[0], self._stream)
            self._copy_in(prepared)
            self._cuda.mark(events[1], self._stream)
            began = time.perf_counter()
            prepared.context.enqueue(self._stream)
            enqueued_ms = 1e3 * (time.perf_counter() - began)
            self._cuda.mark(events[2], self._stream)
            self._copy_out(prepared)
            self._cuda.mark(events[3], self._stream)
            self._cuda.wait(self._stream)
            spans = [self._cuda.between_ms(first, second) for first, second in pairwise(events)]
        return {
            **dict(zip(("host_to_device", "device", "device_to_host"), spans, strict=True)),
            "enqueue": enqueued_ms,
        }

    def prepare(self, shapes: Shapes, profile: int) -> PreparedContext:
        """Prepare a context for a call: profile and shapes set, memory allocated and bound."""
        prepared = self._context_for(shapes if self._graphs else None)
        if prepared.shapes != shapes:
            prepared.shapes = None  # until all of it is set
            if prepared.profile != profile:
                prepared.context.use_profile(profile, self._stream)
                self._cuda.wait(self._stream)
                prepared.profile = profile
            for tensor, shape in zip(self._signature.inputs, shapes, strict=True):
                prepared.context.set_shape(tensor.name, shape)
            prepared.shapes, prepared.bound = shapes, -1
        for tensor in self._signature.tensors:
            self._allocate(tensor, _size(prepared, tensor))
        if prepared.bound != self._reallocations:
            self._forget(prepared)  # a graph holds the old addresses
            for tensor in self._signature.tensors:
                prepared.context.bind(tensor.name, self._buffers[tensor.name].device)
            prepared.bound = self._reallocations
        return prepared

    def close(self) -> None:
        """Free everything."""
        with contextlib.suppress(DskdError):  # the call that failed has reported it
            self._cuda.wait(self._stream)
        for prepared in self._contexts.values():
            self._forget(prepared)
        self._contexts.clear()
        self._current = None
        for buffer in self._buffers.values():
            self._cuda.release(buffer.device)
            self._cuda.release_pinned(buffer.host)
        self._buffers.clear()
        self._closing.close()

    def _context_for(self, key: Shapes | None) -> PreparedContext:
        """Return the context of a shape; create it if needed, and drop the oldest if there are too many."""
        if key in self._contexts:
            return self._contexts[key]
        if len(self._contexts) >= MAX_CONTEXTS:
            self._forget(self._contexts.pop(next(iter(self._contexts))))
        context = self._engine.context()
        context.use_scratch(self._scratch, self._scratch_bytes)
        self._contexts[key] = PreparedContext(context)
        return self._contexts[key]

    def _capture(self, prepared: PreparedContext) -> None:
        """Capture the second call of a shape: the first may still set up what cannot be captured."""
        if not self._graphs or not prepared.warm or prepared.graph is not None:
            return
        if not prepared.context.can_be_captured(self._stream):
            return
        self._cuda.begin_capture(self._stream)
        try:
            self._enqueue(prepared)
        except BaseException:
            self._cuda.abort_capture(self._stream)
            raise
        prepared.graph = self._cuda.end_capture(self._stream)

    def _forget(self, prepared: PreparedContext) -> None:
        """Drop the captured graph."""
        if prepared.graph is not None:
            self._cuda.destroy_graph(prepared.graph)
        prepared.graph, prepared.warm = None, False

    def _enqueue(self, prepared: PreparedContext) -> None:
        """Copy in, engine, copy out: the work that is captured."""
        self._copy_in(prepared)
        prepared.context.enqueue(self._stream)
        self._copy_out(prepared)

    def _copy_in(self, prepared: PreparedContext) -> None:
        for tensor in self._signature.inputs:
            buffer = self._buffers[tensor.name]
            self._cuda.copy_in(buffer.device, buffer.host, _size(prepared, tensor), self._stream)

    def _copy_out(self, prepared: PreparedContext) -> None:
        for tensor in self._signature.outputs:
            buffer = self._buffers[tensor.name]
            self._cuda.copy_out(buffer.host, buffer.device, _size(prepared, tensor), self._stream)

    def _allocate(self, tensor: Tensor, wanted_bytes: int) -> None:
        """Allocate the memory of a tensor; it grows as needed and never shrinks."""
        held = self._buffers.get(tensor.name)
        if held is not None and held.size_bytes >= wanted_bytes:
            return
        if held is not None:
            self._cuda.wait(self._stream)
            del self._buffers[tensor.name]
            self._cuda.release(held.device)
            self._cuda.release_pinned(held.host)
        self._reallocations += 1
        device = self._cuda.allocate(wanted_bytes)
        try:
            host = self._cuda.allocate_pinned(wanted_bytes)
        except BaseException:
            self._cuda.release(device)
            raise
        self._buffers[tensor.name] = Buffer(host, device, wanted_bytes)

    def _fill(self, prepared: PreparedContext, feeds: Mapping[str, Array]) -> None:
        """Copy the inputs to pinned memory."""
        for tensor in self._signature.inputs:
            np.copyto(self._host(prepared, tensor), np.ascontiguousarray(feeds[tensor.name]), casting="no")

    def _host(self, prepared: PreparedContext, tensor: Tensor) -> Any:
        """View the pinned memory of a tensor as an array of its shape in this call."""
        view = array_at(self._buffers[tensor.name].host, _size(prepared, tensor)).view(tensor.dtype)
        return view.reshape(prepared.context.shape(tensor.name))


def _size(prepared: PreparedContext, tensor: Tensor) -> int:
    return math.prod(prepared.context.shape(tensor.name)) * tensor.dtype.itemsize
