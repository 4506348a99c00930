"""A Runner over a TensorRT engine: chooses the profile and the stream of each call."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from dskd_export import codes
from dskd_export.documents.runner_name import RunnerName
from dskd_export.engine.adapter import TensorRtAdapter
from dskd_export.engine.api import Profile, Shape, Signature
from dskd_export.engine.generations import open_backend
from dskd_export.engine.identity import check_identity, read_engine
from dskd_export.errors import EnvironmentProblem, ModelError, UsageError
from dskd_export.runtime.cuda import Cuda
from dskd_export.runtime.runner import Array, RunnerFacts
from dskd_export.runtime.stream import ExecutionStream, Shapes

_WARM_UP_CALLS = 3


class TensorRtRunner:
    """Call an engine with numpy arrays; `document` is its `build.json`, `signature` names inputs and outputs.

    Args:
        engine: `model.<precision>.engine`, next to its `build.json`.
        device: CUDA's index of the GPU.
        streams: CUDA streams for the calls of `infer_many`.
        cuda_graphs: capture each shape once as a CUDA graph and launch that. Never with a DLA.
        backend: TensorRT; None: the installed one.
        cuda: the CUDA device; None: `device`.

    Raises:
        DataError: the engine or its document is missing or damaged.
        EnvironmentProblem: the engine is not for this machine (checked before TensorRT sees it), TensorRT
            cannot be loaded, or the GPU has too little memory.
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
        backend: TensorRtAdapter | None = None,
        cuda: Cuda | None = None,
    ) -> None:
        if streams < 1:
            raise UsageError("streams must be at least 1.", "Use --streams 1 or more.")
        began = time.perf_counter()
        document, plan = read_engine(engine)
        check_identity(document, engine, device=device)
        self._cuda = cuda or Cuda(device)
        trt = backend or open_backend(document.backend)
        if trt.version != document.version and not document.version_compatible:
            # Known only now if the package has no metadata.
            raise EnvironmentProblem(
                f"{engine} needs {document.backend} {document.version}, this is {trt.version}.",
                "Build it with this TensorRT: dskd-compress build BUNDLE",
                code=codes.ENGINE_VERSION,
            )
        self._engine = trt.open(plan, host_code=document.version_compatible)
        del plan
        self.signature: Signature = self._engine.signature
        self.document = document
        graphs = cuda_graphs and document.dla is None
        self.name = RunnerName.of("tensorrt", "cuda", document.precision)
        self._streams: list[ExecutionStream] = []
        with contextlib.ExitStack() as undo:
            for _ in range(streams):
                self._streams.append(ExecutionStream(self._cuda, self._engine, self.signature, graphs=graphs))
                undo.callback(self._streams[-1].close)
            self._closing = undo.pop_all()
        self.facts = RunnerFacts(
            library=document.backend,
            version=document.version,
            provider="cuda",
            precision=document.precision,
            tf32="TF32" in document.flags,
            gpu=None if document.gpu is None else document.gpu.name,
            streams=streams,
            cuda_graphs=graphs,
            device_memory_mb=self.device_memory_bytes / 1e6,
            load_ms=(time.perf_counter() - began) * 1e3,
        )

    @property
    def device_memory_bytes(self) -> int:
        """Device memory in use now, without the engine's weights."""
        return sum(stream.device_memory_bytes for stream in self._streams)

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; blocks until the outputs are in host memory.

        Raises:
            EnvironmentProblem: the GPU ran out of memory, or failed.
            ModelError: the arrays do not fit the engine; names what its profiles support.
        """
        return self._call(self._open_streams()[0], feeds)

    def infer_many(self, feeds: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
        """Run several batches, concurrently on all streams; outputs in the order of `feeds`.

        Raises:
            EnvironmentProblem: the GPU ran out of memory, or failed.
            ModelError: an array does not fit the engine.
        """
        streams = self._open_streams()
        answers: list[dict[str, Array]] = []
        for start in range(0, len(feeds), len(streams)):
            group = list(zip(streams, feeds[start : start + len(streams)], strict=False))
            for stream, feed in group:
                shapes = self._shapes(feed)
                stream.start(feed, shapes, self._profile(shapes))
            answers += [stream.finish() for stream, _ in group]
        return answers

    def layers(self, feeds: Mapping[str, Array]) -> str:
        """Return the inspector's JSON on all layers, for a call of this shape."""
        shapes = self._shapes(feeds)
        prepared = self._open_streams()[0].prepare(shapes, self._profile(shapes))
        return self._engine.layers(prepared.context)

    def time_layers(self, feeds: Mapping[str, Array], *, calls: int) -> dict[str, float]:
        """Sum the milliseconds of each layer over calls after a warm-up, on a separate stream without a graph.

        Args:
            feeds: one batch.
            calls: number of summed calls.
        """
        times_ms: dict[str, float] = {}
        for found, _ in self.sample_layers(feeds, calls=calls):
            for name, ms in found.items():
                times_ms[name] = times_ms.get(name, 0.0) + ms
        return times_ms

    def sample_layers(
        self, feeds: Mapping[str, Array], *, calls: int, warmup_calls: int = _WARM_UP_CALLS
    ) -> list[tuple[dict[str, float], float]]:
        """Time each layer of each call in milliseconds, on a separate stream without a graph.

        Args:
            feeds: one batch.
            calls: number of timed calls.
            warmup_calls: made before.

        Returns:
            For each call: layer -> its time, and the wall time of the call.
        """
        times_ms: dict[str, float] = {}
        samples = []
        shapes = self._shapes(feeds)
        with contextlib.closing(ExecutionStream(self._cuda, self._engine, self.signature, graphs=False)) as stream:
            stream.prepare(shapes, self._profile(shapes)).context.time_layers(times_ms)
            for _ in range(calls + warmup_calls):
                times_ms.clear()
                began = time.perf_counter()
                self._call(stream, feeds)
                samples.append((dict(times_ms), 1e3 * (time.perf_counter() - began)))
        return samples[warmup_calls:]

    def time_parts(self, feeds: Mapping[str, Array], *, calls: int) -> dict[str, list[float]]:
        """Time copy in, launch, compute and copy out of each call in milliseconds, without a graph.

        Args:
            feeds: one batch.
            calls: number of timed calls, after a warm-up.
        """
        shapes = self._shapes(feeds)
        profile = self._profile(shapes)
        with contextlib.closing(ExecutionStream(self._cuda, self._engine, self.signature, graphs=False)) as stream:
            found = [stream.time_parts(feeds, shapes, profile) for _ in range(calls + _WARM_UP_CALLS)]
        return {name: [one[name] for one in found[_WARM_UP_CALLS:]] for name in found[0]}

    def __enter__(self) -> TensorRtRunner:
        return self

    def __exit__(self, *error: object) -> None:
        self._streams.clear()
        self._closing.close()

    def _open_streams(self) -> list[ExecutionStream]:
        if not self._streams:
            raise RuntimeError(f"{self.name} is closed")
        return self._streams

    def _call(self, stream: ExecutionStream, feeds: Mapping[str, Array]) -> dict[str, Array]:
        shapes = self._shapes(feeds)
        stream.start(feeds, shapes, self._profile(shapes))
        return stream.finish()

    def _profile(self, shapes: Shapes) -> int:
        """Choose the smallest profile that supports these shapes."""
        inputs = self.signature.inputs
        fitting = [
            (sum(math.prod(profile[t.name][2]) for t in inputs), index)
            for index, profile in enumerate(self.signature.profiles)
            if all(_supports(profile, t.name, shape) for t, shape in zip(inputs, shapes, strict=True))
        ]
        if not fitting:
            ranges = "; ".join(
                ", ".join(f"{name} {list(low)} to {list(high)}" for name, (low, _, high) in profile.items())
                for profile in self.signature.profiles
            )
            given = ", ".join(f"{t.name} {list(shape)}" for t, shape in zip(inputs, shapes, strict=True))
            raise ModelError(
                f"{self.name} has no profile for {given}; it supports {ranges}.",
                "Build the engine with more batch sizes: dskd-compress build BUNDLE --batch 1,8",
            )
        return min(fitting)[1]

    def _shapes(self, feeds: Mapping[str, Array]) -> Shapes:
        names = {tensor.name for tensor in self.signature.inputs}
        if feeds.keys() != names:
            raise ModelError(
                f"{self.name} needs the inputs {', '.join(sorted(names))}, got {', '.join(feeds) or 'none'}.",
                "Use the input names in spec.json.",
            )
        for tensor in self.signature.inputs:
            if feeds[tensor.name].dtype != tensor.dtype:
                raise ModelError(
                    f"{self.name} needs {tensor.name} as {tensor.dtype}, got {feeds[tensor.name].dtype}.",
                    "Use the input type in spec.json.",
                )
        return tuple(tuple(feeds[tensor.name].shape) for tensor in self.signature.inputs)


def _supports(profile: Profile, name: str, shape: Shape) -> bool:
    smallest, _, largest = profile[name]
    return len(shape) == len(smallest) and all(
        low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True)
    )
