"""A Runner over a TensorRT engine: which profile takes a call, and which stream does it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from dskd_export import codes
from dskd_export.engine.api import Backend, Profile, Shape, Signature
from dskd_export.engine.document import BuildDocument
from dskd_export.engine.generations import open_backend
from dskd_export.engine.identity import check_identity, read_engine
from dskd_export.errors import EnvironmentProblem, ModelError, UsageError
from dskd_export.runtime.cuda import Cuda
from dskd_export.runtime.lane import Lane, Shapes
from dskd_export.runtime.runner import Array

_WARM_UP_CALLS = 3


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
                code=codes.ENGINE_VERSION,
            )
        self._engine = trt.open(plan, host_code=document.version_compatible)
        del plan
        self.signature: Signature = self._engine.signature
        self._document = document
        graphs = cuda_graphs and document.dla is None
        self._name = f"tensorrt:cuda:{document.precision}"
        self._lanes: list[Lane] = []
        with contextlib.ExitStack() as undo:
            for _ in range(streams):
                self._lanes.append(Lane(self._cuda, self._engine, self.signature, graphs=graphs))
                undo.callback(self._lanes[-1].close)
            self._closing = undo.pop_all()
        self._facts: dict[str, Any] = {
            document.backend: document.version,
            "provider": "cuda",
            "device": device,
            "gpu": None if document.gpu is None else document.gpu.name,
            "precision": document.precision,
            "streams": streams,
            "cuda_graphs": graphs,
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
        return sum(lane.device_memory_bytes for lane in self._lanes)

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; blocks until the outputs are in host memory.

        Raises:
            EnvironmentProblem: the GPU ran out of memory, or failed.
            ModelError: the arrays do not fit the engine; says what its profiles take.
        """
        return self._call(self._open_lanes()[0], feeds)

    def infer_many(self, feeds: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
        """Run several batches, one on each stream at a time; outputs in the order of `feeds`.

        Raises:
            EnvironmentProblem: the GPU ran out of memory, or failed.
            ModelError: an array does not fit the engine.
        """
        lanes = self._open_lanes()
        answers: list[dict[str, Array]] = []
        for start in range(0, len(feeds), len(lanes)):
            lot = list(zip(lanes, feeds[start : start + len(lanes)], strict=False))
            for lane, feed in lot:
                shapes = self._shapes(feed)
                lane.start(feed, shapes, self._profile(shapes))
            answers += [lane.finish() for lane, _ in lot]
        return answers

    def layers(self, feeds: Mapping[str, Array]) -> str:
        """The inspector's JSON on all layers, for a call of this shape."""
        shapes = self._shapes(feeds)
        slot = self._open_lanes()[0].prepare(shapes, self._profile(shapes))
        return self._engine.layers(slot.context)

    def time_layers(self, feeds: Mapping[str, Array], *, calls: int) -> dict[str, float]:
        """Milliseconds of each layer, summed over calls after a warm-up; in a lane of its own, without a graph.

        Args:
            feeds: one batch.
            calls: that are summed.
        """
        times_ms: dict[str, float] = {}
        shapes = self._shapes(feeds)
        with contextlib.closing(Lane(self._cuda, self._engine, self.signature, graphs=False)) as lane:
            lane.prepare(shapes, self._profile(shapes)).context.time_layers(times_ms)
            for call in range(calls + _WARM_UP_CALLS):
                if call == _WARM_UP_CALLS:
                    times_ms.clear()
                self._call(lane, feeds)
        return times_ms

    def time_parts(self, feeds: Mapping[str, Array], *, calls: int) -> dict[str, list[float]]:
        """Copy in, start, compute and copy out apart, in milliseconds of each call; without a graph.

        Args:
            feeds: one batch.
            calls: that are timed, after a warm-up.
        """
        shapes = self._shapes(feeds)
        profile = self._profile(shapes)
        with contextlib.closing(Lane(self._cuda, self._engine, self.signature, graphs=False)) as lane:
            found = [lane.time_parts(feeds, shapes, profile) for _ in range(calls + _WARM_UP_CALLS)]
        return {name: [one[name] for one in found[_WARM_UP_CALLS:]] for name in found[0]}

    def __enter__(self) -> TensorRtRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lanes.clear()
        self._closing.close()

    def _open_lanes(self) -> list[Lane]:
        if not self._lanes:
            raise RuntimeError(f"{self._name} is closed")
        return self._lanes

    def _call(self, lane: Lane, feeds: Mapping[str, Array]) -> dict[str, Array]:
        shapes = self._shapes(feeds)
        lane.start(feeds, shapes, self._profile(shapes))
        return lane.finish()

    def _profile(self, shapes: Shapes) -> int:
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

    def _shapes(self, feeds: Mapping[str, Array]) -> Shapes:
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


def _takes(profile: Profile, name: str, shape: Shape) -> bool:
    smallest, _, largest = profile[name]
    return len(shape) == len(smallest) and all(
        low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True)
    )
