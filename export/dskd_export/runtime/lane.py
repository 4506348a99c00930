"""What one stream of a TensorRT engine works with, and one call on it.

A lane has pinned host memory, device memory for inputs and outputs, and scratch memory that all that runs in
it shares, as only one call does at a time. A shape that comes again is one CUDA graph: copy in, engine, copy
out. A graph belongs to the state of its context, so each shape then has a context of its own; without graphs
one context switches between the profiles.

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

from dskd_export.engine.api import Context, Engine, Shape, Signature, Tensor
from dskd_export.errors import DskdError
from dskd_export.runtime.cuda import Cuda, array_at
from dskd_export.runtime.runner import Array

_ALIGNMENT = 256
MAX_SLOTS = 16
"""Shapes of a lane that have a context and a graph at a time."""

Shapes = tuple[Shape, ...]


@dataclass
class Buffer:
    """The two ends of a tensor: pinned memory here, and device memory."""

    host: int
    device: int
    size_bytes: int


@dataclass
class Slot:
    """A context and the call that it is set up for.

    Attributes:
        shapes: of the inputs; None: not set up yet.
        bound: the lane's `moves` at which it was told where its tensors lie.
        graph: the whole call, recorded.
        warm: it has run with these shapes and addresses.
    """

    context: Context
    profile: int | None = None
    shapes: Shapes | None = None
    bound: int = -1
    graph: Any = None
    warm: bool = False


class Lane:
    """One stream of an engine. Close it when the last call is done.

    Args:
        cuda: the device.
        engine: that is called.
        signature: of the engine.
        graphs: record each shape of a call once and launch it after that.

    Raises:
        EnvironmentProblem: the GPU has too little memory.
    """

    def __init__(self, cuda: Cuda, engine: Engine, signature: Signature, *, graphs: bool) -> None:
        self._cuda = cuda
        self._engine = engine
        self._signature = signature
        self._graphs = graphs
        self._closing = contextlib.ExitStack()
        self._buffers: dict[str, Buffer] = {}
        self._moves = 0  # how often a tensor got other memory
        self._slots: dict[Shapes | None, Slot] = {}
        self._current: Slot | None = None
        with contextlib.ExitStack() as undo:
            self._stream = cuda.make_stream()
            undo.callback(cuda.destroy_stream, self._stream)
            self._scratch = cuda.allocate(self._scratch_bytes)
            undo.callback(cuda.release, self._scratch)
            self._closing = undo.pop_all()

    @property
    def device_memory_bytes(self) -> int:
        """Device memory that it holds now."""
        return self._scratch_bytes + sum(buffer.size_bytes for buffer in self._buffers.values())

    @property
    def _scratch_bytes(self) -> int:
        """Enough for every profile, so that switching allocates nothing."""
        largest = max(self._signature.scratch_bytes, default=0)
        return max(_ALIGNMENT, math.ceil(largest / _ALIGNMENT) * _ALIGNMENT)

    def start(self, feeds: Mapping[str, Array], shapes: Shapes, profile: int) -> None:
        """Begin a call; its inputs are copied before this returns.

        Args:
            feeds: input name -> array, of the engine's types.
            shapes: of the inputs, in the engine's order.
            profile: that takes them.
        """
        slot = self._current = self.prepare(shapes, profile)
        for tensor in self._signature.inputs:
            np.copyto(self._host(slot, tensor), np.ascontiguousarray(feeds[tensor.name]), casting="no")
        self._record(slot)
        if slot.graph is None:
            self._enqueue(slot)
        else:
            self._cuda.launch(slot.graph, self._stream)
        slot.warm = True

    def finish(self) -> dict[str, Array]:
        """Wait for the call that was begun last, and give its outputs."""
        self._cuda.wait(self._stream)
        assert self._current is not None
        return {tensor.name: self._host(self._current, tensor).copy() for tensor in self._signature.outputs}

    def time_parts(self, feeds: Mapping[str, Array], shapes: Shapes, profile: int) -> dict[str, float]:
        """One call without a graph, its steps apart, in milliseconds.

        `host_to_device`, `device` and `device_to_host` by events on the stream; `enqueue` by the wall clock: what
        the CPU takes to start the engine.
        """
        slot = self.prepare(shapes, profile)
        with contextlib.ExitStack() as undo:
            events = []
            for _ in range(4):
                events.append(self._cuda.make_event())
                undo.callback(self._cuda.destroy_event, events[-1])
            for tensor in self._signature.inputs:
                np.copyto(self._host(slot, tensor), np.ascontiguousarray(feeds[tensor.name]), casting="no")
            self._cuda.mark(events[0], self._stream)
            self._copy_in(slot)
            self._cuda.mark(events[1], self._stream)
            began = time.perf_counter()
            slot.context.enqueue(self._stream)
            enqueued_ms = 1e3 * (time.perf_counter() - began)
            self._cuda.mark(events[2], self._stream)
            self._copy_out(slot)
            self._cuda.mark(events[3], self._stream)
            self._cuda.wait(self._stream)
            spans = [self._cuda.between_ms(first, second) for first, second in pairwise(events)]
        return {
            **dict(zip(("host_to_device", "device", "device_to_host"), spans, strict=True)),
            "enqueue": enqueued_ms,
        }

    def prepare(self, shapes: Shapes, profile: int) -> Slot:
        """The slot for a call: its profile and shapes set, its memory there and bound."""
        slot = self._slot(shapes if self._graphs else None)
        if slot.shapes != shapes:
            slot.shapes = None  # until all of it is set
            if slot.profile != profile:
                slot.context.use_profile(profile, self._stream)
                self._cuda.wait(self._stream)
                slot.profile = profile
            for tensor, shape in zip(self._signature.inputs, shapes, strict=True):
                slot.context.set_shape(tensor.name, shape)
            slot.shapes, slot.bound = shapes, -1
        for tensor in self._signature.tensors:
            self._hold(tensor, _size(slot, tensor))
        if slot.bound != self._moves:
            self._forget(slot)  # a graph has the old addresses
            for tensor in self._signature.tensors:
                slot.context.bind(tensor.name, self._buffers[tensor.name].device)
            slot.bound = self._moves
        return slot

    def close(self) -> None:
        """Give everything back."""
        with contextlib.suppress(DskdError):  # a GPU that failed is told by the call that failed
            self._cuda.wait(self._stream)
        for slot in self._slots.values():
            self._forget(slot)
        self._slots.clear()
        self._current = None
        for buffer in self._buffers.values():
            self._cuda.release(buffer.device)
            self._cuda.release_pinned(buffer.host)
        self._buffers.clear()
        self._closing.close()

    def _slot(self, key: Shapes | None) -> Slot:
        """The slot of a shape, made where there is none; the oldest one goes where there are too many."""
        if key in self._slots:
            return self._slots[key]
        if len(self._slots) >= MAX_SLOTS:
            self._forget(self._slots.pop(next(iter(self._slots))))
        context = self._engine.context()
        context.use_scratch(self._scratch, self._scratch_bytes)
        self._slots[key] = Slot(context)
        return self._slots[key]

    def _record(self, slot: Slot) -> None:
        """Make the second call of a shape a graph; the first may still set things up that no graph can hold."""
        if not self._graphs or not slot.warm or slot.graph is not None:
            return
        if not slot.context.can_be_captured(self._stream):
            return
        self._cuda.begin_capture(self._stream)
        try:
            self._enqueue(slot)
        except BaseException:
            self._cuda.abort_capture(self._stream)
            raise
        slot.graph = self._cuda.end_capture(self._stream)

    def _forget(self, slot: Slot) -> None:
        """Drop what was recorded."""
        if slot.graph is not None:
            self._cuda.destroy_graph(slot.graph)
        slot.graph, slot.warm = None, False

    def _enqueue(self, slot: Slot) -> None:
        """Copy in, engine, copy out: what a graph records."""
        self._copy_in(slot)
        slot.context.enqueue(self._stream)
        self._copy_out(slot)

    def _copy_in(self, slot: Slot) -> None:
        for tensor in self._signature.inputs:
            buffer = self._buffers[tensor.name]
            self._cuda.copy_in(buffer.device, buffer.host, _size(slot, tensor), self._stream)

    def _copy_out(self, slot: Slot) -> None:
        for tensor in self._signature.outputs:
            buffer = self._buffers[tensor.name]
            self._cuda.copy_out(buffer.host, buffer.device, _size(slot, tensor), self._stream)

    def _hold(self, tensor: Tensor, wanted_bytes: int) -> None:
        """Memory of a tensor: it grows to what is wanted, and never shrinks."""
        held = self._buffers.get(tensor.name)
        if held is not None and held.size_bytes >= wanted_bytes:
            return
        if held is not None:
            self._cuda.wait(self._stream)
            del self._buffers[tensor.name]
            self._cuda.release(held.device)
            self._cuda.release_pinned(held.host)
        self._moves += 1
        device = self._cuda.allocate(wanted_bytes)
        try:
            host = self._cuda.allocate_pinned(wanted_bytes)
        except BaseException:
            self._cuda.release(device)
            raise
        self._buffers[tensor.name] = Buffer(host, device, wanted_bytes)

    def _host(self, slot: Slot, tensor: Tensor) -> Any:
        """The pinned memory of a tensor as an array of its shape in this call."""
        view = array_at(self._buffers[tensor.name].host, _size(slot, tensor)).view(tensor.dtype)
        return view.reshape(slot.context.shape(tensor.name))


def _size(slot: Slot, tensor: Tensor) -> int:
    return math.prod(slot.context.shape(tensor.name)) * tensor.dtype.itemsize
