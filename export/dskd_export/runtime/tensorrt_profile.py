"""Time every layer of a TensorRT engine, with TensorRT's `IProfiler`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dskd_export.engine.adapter import TensorRtAdapter
from dskd_export.engine.inspect import Layer, layers_of_json
from dskd_export.errors import EnvironmentProblem, ModelError
from dskd_export.runtime.cuda import Cuda
from dskd_export.runtime.layer_times import ProfiledCalls, TimedLayer
from dskd_export.runtime.runner import Array
from dskd_export.runtime.tensorrt import TensorRtRunner

GRAPH = "the layers of the TensorRT engine, without a CUDA graph: fused layers are one"


def profile_engine(
    engine: Path,
    feeds: Mapping[str, Array],
    *,
    calls: int,
    warmup_calls: int,
    backend: TensorRtAdapter | None = None,
    cuda: Cuda | None = None,
) -> ProfiledCalls:
    """Time the layers of an engine on a separate execution context.

    Args:
        engine: `model.<precision>.engine`.
        feeds: one batch.
        calls: that are counted.
        warmup_calls: made before.
        backend: TensorRT; None: the installed one.
        cuda: the CUDA device; None: the first.

    Raises:
        EnvironmentProblem: the engine cannot run here, or TensorRT reports no times.
        ModelError: the arrays do not fit the engine.
    """
    with TensorRtRunner(engine, cuda_graphs=False, backend=backend, cuda=cuda) as runner:
        try:
            known = {layer.name: layer for layer in layers_of_json(runner.layers(feeds))}
        except (
            ModelError
        ):  # an engine of another tool, built without names of layers: times have names all the same
            known = {}
        found = runner.sample_layers(feeds, calls=calls, warmup_calls=warmup_calls)
    if not any(times_ms for times_ms, _ in found):
        raise EnvironmentProblem(
            "TensorRT reports no times of layers for this engine.", "Build it again: dskd-compress build BUNDLE"
        )
    return ProfiledCalls(
        [[_time_layer(name, ms, known.get(name)) for name, ms in times_ms.items()] for times_ms, _ in found],
        [call_ms for _, call_ms in found],
        GRAPH,
    )


def _time_layer(name: str, milliseconds: float, layer: Layer | None) -> TimedLayer:
    if layer is None:
        return TimedLayer(name, "", 1e3 * milliseconds)
    return TimedLayer(name, layer.operator, 1e3 * milliseconds, layer.type)
