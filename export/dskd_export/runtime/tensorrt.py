"""A Runner over a TensorRT engine.

Every stream has a lane: pinned host memory, device memory for inputs and outputs, and scratch memory that
all that runs in the lane shares, as only one call does at a time. A shape that comes again is one CUDA
graph: copy in, engine, copy out. A graph belongs to the state of its context, so each shape then has a
context of its own; without graphs one context switches between the profiles.

CUDA graphs: https://docs.nvidia.com/deeplearning/tensorrt/latest/performance/best-practices.html
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from dskd_export.engine.api import Backend, Context, Profile, Shape, Signature, Tensor
from dskd_export.engine.document import BuildDocument
from dskd_export.engine.generations import open_backend
from dskd_export.engine.identity import check_identity, read_engine
from dskd_export.errors import DskdError, EnvironmentProblem, ModelError, UsageError
from dskd_export.runtime.cuda import Cuda, array_at
from dskd_export.runtime.runner import Array

_ALIGNMENT = 256
# Shapes of a lane that have a context and a graph at a time.
_MAX_SLOTS = 16
_WARM_UP_CALLS = 3


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
        bound: the `Lane.moves` at which it was told where its tensors lie.
        graph: the whole call, recorded.
        warm: it has run with these shapes and addresses.
    """

    context: Context
    profile: int | None = None
    shapes: tuple[Shape, ...] | None = None
    bound: int = -1
    graph: Any = None
    warm: bool = False


@dataclass
class Lane:
    """What one stream works with.

    Attributes:
        moves: how often a tensor got other memory.
        slots: by shapes, or one for all without CUDA graphs.
        current: of the call that is under way.
    """

    stream: int
    scratch: int
    buffers: dict[str, Buffer] = field(default_factory=dict)
    moves: int = 0
    slots: dict[tuple[Shape, ...] | None, Slot] = field(default_factory=dict)
    current: Slot | None = None


class TensorRtRunner:
    """Call an engine with numpy arrays.

    Args:
        engine: `model.<precision>.engine`, with its `build.json` beside it.
        device: CUDA's index of the GPU.
        streams: that calls are spread over by `infer_many`.
        cuda_graphs: record each shape of a call once and launch it after that. Never with a DLA.
        backend: TensorRT; None: the one that is installed.
        cuda: the CUDA device; None: `device`.

    Raises:
        DataError: the engine or its document is missing or damaged.
        EnvironmentProblem: the engine is not for this machine (told before TensorRT sees it), TensorRT does
            not load, or the GPU has too little memory.
        MissingExtra: TensorRT or cuda-bindings is not installed.
        UsageError: fewer than one stream.
    """

    def __init__(
        self,
        engine: Path,
        *,
        device: int = 0,
        streams: int = 1,
        cuda_graphs: bool = True,
        backend: Backend | None = None,
        cuda: Cuda | None = None,
    ) -> None:
        if streams < 1:
            raise UsageError(f"{streams} streams cannot run an engine.", "Give at least 1.")
        began = time.perf_counter()
        document, plan = read_engine(engine)
        check_identity(document, engine, device=device)
        self._cuda = cuda or Cuda(device)
        trt = backend or open_backend(document.backend)
        if trt.version != document.version and not document.version_compatible:
            # Where no metadata told the version before.
            raise EnvironmentProblem(
                f"{engine} is of {document.backend} {document.version}, and this is {trt.version}.",
                "Build it again with this TensorRT: dskd-compress build",
            )
        self._engine = trt.open(plan)
        del plan
        self.signature: Signature = self._engine.signature
        self._document = document
        self._graphs = cuda_graphs and document.dla is None
        self._name = f"tensorrt:cuda:{document.precision}"
        self._closing = contextlib.ExitStack()
        self._lanes: list[Lane] = []
        try:
            for _ in range(streams):
                self._lanes.append(self._open_lane())
        except BaseException:
            self._closing.close()
            raise
        self._facts: dict[str, Any] = {
            document.backend: document.version,
            "provider": "cuda",
            "device": device,
            "gpu": None if document.gpu is None else document.gpu.name,
            "precision": document.precision,
            "streams": streams,
            "cuda_graphs": self._graphs,
            "profiles": [profile.model_dump() for profile in document.profiles],
            "engine_sha256": document.engine_sha256,
            "device_memory_mb": self.device_memory_bytes / 1e6,
            "load_ms": (time.perf_counter() - began) * 1e3,
        }

    @property
    def name(self) -> str:
        """For example `tensorrt:cuda:fp16`."""
        return self._name

    @property
    def facts(self) -> Mapping[str, Any]:
        """Version, precision, streams, CUDA graphs, profiles, memory at the start, and `load_ms`."""
        return self._facts

    @property
    def document(self) -> BuildDocument:
        """What is known of the engine."""
        return self._document

    @property
    def device_memory_bytes(self) -> int:
        """Device memory that this runner holds now, the engine's own weights left out."""
        scratch = len(self._lanes) * self._scratch_bytes
        return scratch + sum(buffer.size_bytes for lane in self._lanes for buffer in lane.buffers.values())

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; blocks until the outputs are in host memory.

        Raises:
            EnvironmentProblem: the GPU ran out of memory, or failed.
            ModelError: the arrays do not fit the engine; says what its profiles take.
        """
        lane = self._lane(0)
        self._start(lane, feeds)
        return self._finish(lane)

    def infer_many(self, feeds: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
        """Run several batches, one on each stream at a time; outputs in the order of `feeds`.

        Raises:
            EnvironmentProblem: the GPU ran out of memory, or failed.
            ModelError: an array does not fit the engine.
        """
        answers: list[dict[str, Array]] = []
        for start in range(0, len(feeds), len(self._lanes)):
            lot = list(zip(itertools.count(), feeds[start : start + len(self._lanes)], strict=False))
            for index, feed in lot:
                self._start(self._lane(index), feed)
            answers += [self._finish(self._lane(index)) for index, _ in lot]
        return answers

    def layers(self, feeds: Mapping[str, Array]) -> str:
        """The inspector's JSON on all layers, for a call of this shape."""
        slot = self._prepare(self._lane(0), self._shapes(feeds))
        return self._engine.layers(slot.context)

    def time_layers(self, feeds: Mapping[str, Array], *, calls: int) -> dict[str, float]:
        """Milliseconds of each layer, summed over calls after a warm-up; in a lane of its own, without a graph.

        Args:
            feeds: one batch.
            calls: that are summed.
        """
        times_ms: dict[str, float] = {}
        graphs, self._graphs = self._graphs, False
        try:
            lane = self._open_lane()
            slot = self._prepare(lane, self._shapes(feeds))
            slot.context.time_layers(times_ms)
            for call in range(calls + _WARM_UP_CALLS):
                if call == _WARM_UP_CALLS:
                    times_ms.clear()
                self._start(lane, feeds)
                self._finish(lane)
        finally:
            self._graphs = graphs
        return times_ms

    def __enter__(self) -> TensorRtRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lanes.clear()
        self._closing.close()

    # --- one call

    def _start(self, lane: Lane, feeds: Mapping[str, Array]) -> None:
        slot = lane.current = self._prepare(lane, self._shapes(feeds))
        for tensor in self.signature.inputs:
            array = np.ascontiguousarray(feeds[tensor.name])
            np.copyto(self._host(lane, slot, tensor), array, casting="no")
        self._record(lane, slot)
        if slot.graph is None:
            self._enqueue(lane, slot)
        else:
            self._cuda.launch(slot.graph, lane.stream)
        slot.warm = True

    def _finish(self, lane: Lane) -> dict[str, Array]:
        self._cuda.wait(lane.stream)
        assert lane.current is not None
        return {tensor.name: self._host(lane, lane.current, tensor).copy() for tensor in self.signature.outputs}

    def _enqueue(self, lane: Lane, slot: Slot) -> None:
        """Copy in, engine, copy out: what a graph records."""
        for tensor in self.signature.inputs:
            buffer = lane.buffers[tensor.name]
            self._cuda.copy_in(buffer.device, buffer.host, _size(slot, tensor), lane.stream)
        slot.context.enqueue(lane.stream)
        for tensor in self.signature.outputs:
            buffer = lane.buffers[tensor.name]
            self._cuda.copy_out(buffer.host, buffer.device, _size(slot, tensor), lane.stream)

    def _record(self, lane: Lane, slot: Slot) -> None:
        """Make the second call of a shape a graph; the first may still set things up that no graph can hold."""
        if not self._graphs or not slot.warm or slot.graph is not None:
            return
        if not slot.context.can_be_captured(lane.stream):
            return
        self._cuda.begin_capture(lane.stream)
        try:
            self._enqueue(lane, slot)
        except BaseException:
            self._cuda.abort_capture(lane.stream)
            raise
        slot.graph = self._cuda.end_capture(lane.stream)

    def _prepare(self, lane: Lane, shapes: tuple[Shape, ...]) -> Slot:
        """The slot for these shapes: its profile and shapes set, its memory there and bound."""
        profile = self._profile(shapes)
        slot = self._slot(lane, shapes if self._graphs else None)
        if slot.shapes != shapes:
            slot.shapes = None  # until all of it is set
            if slot.profile != profile:
                slot.context.use_profile(profile, lane.stream)
                self._cuda.wait(lane.stream)
                slot.profile = profile
            for tensor, shape in zip(self.signature.inputs, shapes, strict=True):
                slot.context.set_shape(tensor.name, shape)
            slot.shapes, slot.bound = shapes, -1
        for tensor in self.signature.tensors:
            self._hold(lane, tensor, _size(slot, tensor))
        if slot.bound != lane.moves:
            self._forget(slot)  # a graph has the old addresses
            for tensor in self.signature.tensors:
                slot.context.bind(tensor.name, lane.buffers[tensor.name].device)
            slot.bound = lane.moves
        return slot

    def _slot(self, lane: Lane, key: tuple[Shape, ...] | None) -> Slot:
        """The slot of a shape, made where there is none; the oldest one goes where there are too many."""
        if key in lane.slots:
            return lane.slots[key]
        if len(lane.slots) >= _MAX_SLOTS:
            self._forget(lane.slots.pop(next(iter(lane.slots))))
        context = self._engine.context()
        context.use_scratch(lane.scratch, self._scratch_bytes)
        lane.slots[key] = Slot(context)
        return lane.slots[key]

    def _forget(self, slot: Slot) -> None:
        """Drop what was recorded."""
        if slot.graph is not None:
            self._cuda.destroy_graph(slot.graph)
        slot.graph, slot.warm = None, False

    def _profile(self, shapes: tuple[Shape, ...]) -> int:
        """The profile that takes these shapes with the least to spare."""
        inputs = self.signature.inputs
        fitting = [
            (sum(math.prod(profile[t.name][2]) for t in inputs), index)
            for index, profile in enumerate(self.signature.profiles)
            if all(_takes(profile, t.name, shape) for t, shape in zip(inputs, shapes, strict=True))
        ]
        if not fitting:
            ranges = "; ".join(
                ", ".join(f"{name} {list(low)} to {list(high)}" for name, (low, _, high) in profile.items())
                for profile in self.signature.profiles
            )
            given = ", ".join(f"{t.name} {list(shape)}" for t, shape in zip(inputs, shapes, strict=True))
            raise ModelError(
                f"{self._name} has no profile for {given}; it takes {ranges}.",
                "Build the engine with the batches that you need (--batches), or call it with one of these.",
            )
        return min(fitting)[1]

    def _shapes(self, feeds: Mapping[str, Array]) -> tuple[Shape, ...]:
        names = {tensor.name for tensor in self.signature.inputs}
        if feeds.keys() != names:
            raise ModelError(
                f"{self._name} takes {', '.join(sorted(names))} and was given {', '.join(feeds) or 'nothing'}.",
                "Feed it what its spec.json says.",
            )
        for tensor in self.signature.inputs:
            if feeds[tensor.name].dtype != tensor.dtype:
                raise ModelError(
                    f"{self._name} takes {tensor.name} as {tensor.dtype}, not {feeds[tensor.name].dtype}.",
                    "Feed it what its spec.json says.",
                )
        return tuple(tuple(feeds[tensor.name].shape) for tensor in self.signature.inputs)

    # --- memory

    @property
    def _scratch_bytes(self) -> int:
        """Enough for every profile, so that switching allocates nothing."""
        largest = max(self.signature.scratch_bytes, default=0)
        return max(_ALIGNMENT, math.ceil(largest / _ALIGNMENT) * _ALIGNMENT)

    def _open_lane(self) -> Lane:
        stream = self._cuda.make_stream()
        self._closing.callback(self._cuda.destroy_stream, stream)
        scratch = self._cuda.allocate(self._scratch_bytes)
        self._closing.callback(self._cuda.release, scratch)
        lane = Lane(stream, scratch)
        self._closing.callback(self._close_lane, lane)
        return lane

    def _close_lane(self, lane: Lane) -> None:
        with contextlib.suppress(DskdError):  # a GPU that failed is told by the call that failed
            self._cuda.wait(lane.stream)
        for slot in lane.slots.values():
            self._forget(slot)
        lane.slots.clear()
        lane.current = None
        for buffer in lane.buffers.values():
            self._cuda.release(buffer.device)
            self._cuda.release_pinned(buffer.host)
        lane.buffers.clear()

    def _hold(self, lane: Lane, tensor: Tensor, wanted_bytes: int) -> None:
        """Memory of a tensor: it grows to what is wanted, and never shrinks."""
        held = lane.buffers.get(tensor.name)
        if held is not None and held.size_bytes >= wanted_bytes:
            return
        if held is not None:
            self._cuda.wait(lane.stream)
            del lane.buffers[tensor.name]
            self._cuda.release(held.device)
            self._cuda.release_pinned(held.host)
        lane.moves += 1
        device = self._cuda.allocate(wanted_bytes)
        try:
            host = self._cuda.allocate_pinned(wanted_bytes)
        except BaseException:
            self._cuda.release(device)
            raise
        lane.buffers[tensor.name] = Buffer(host, device, wanted_bytes)

    def _host(self, lane: Lane, slot: Slot, tensor: Tensor) -> Any:
        """The pinned memory of a tensor as an array of its shape in this call."""
        view = array_at(lane.buffers[tensor.name].host, _size(slot, tensor)).view(tensor.dtype)
        return view.reshape(slot.context.shape(tensor.name))

    def _lane(self, index: int) -> Lane:
        if not self._lanes:
            raise RuntimeError(f"{self._name} is closed")
        return self._lanes[index]


def _size(slot: Slot, tensor: Tensor) -> int:
    return math.prod(slot.context.shape(tensor.name)) * tensor.dtype.itemsize


def _takes(profile: Profile, name: str, shape: Shape) -> bool:
    smallest, _, largest = profile[name]
    return len(shape) == len(smallest) and all(
        low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True)
    )
