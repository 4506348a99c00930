"""Times of the single nodes or layers of a model, as a runner's profiler reports them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TimedLayer:
    """One node or layer in one call.

    Attributes:
        name: in the graph that runs, where fused nodes are one.
        operator: ONNX Runtime's operator, or TensorRT's type of layer; empty: not reported.
        microseconds: its time in this call.
        number_type: that it computes in, for example `int8`; None: not reported, or it computes nothing.
    """

    name: str
    operator: str
    microseconds: float
    number_type: str | None = None


@dataclass(frozen=True)
class ProfiledCalls:
    """Calls of a model under a profiler, after a warm-up.

    Attributes:
        calls: the layers of each call.
        call_ms: wall time of each call, the profiler counted.
        graph: which graph the names belong to, in words.
    """

    calls: Sequence[Sequence[TimedLayer]]
    call_ms: Sequence[float]
    graph: str
