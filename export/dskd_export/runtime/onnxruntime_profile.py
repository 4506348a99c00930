"""Time every node of a model in ONNX Runtime, with its own profiler."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from dskd_export.errors import EnvironmentProblem
from dskd_export.runtime.compute_precision import find_kernel_type
from dskd_export.runtime.layer_times import ProfiledCalls, TimedLayer
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner
from dskd_export.runtime.profile_events import (
    Event,
    arguments_of,
    duration_us,
    is_node,
    name_node,
    read_events,
    split_calls,
)
from dskd_export.runtime.providers import CPU, TENSORRT
from dskd_export.runtime.runner import Array

OPTIMIZED = "ONNX Runtime's optimized graph: fused nodes are one"
AS_EXPORTED = "the graph as exported: ONNX Runtime's optimizer is off for this model"

# Their time is that of the nodes inside them, which have separate events.
_CONTAINERS = {"If", "Loop", "Scan"}


def profile_onnx(
    model: Path | bytes,
    provider: str,
    precision: str,
    feeds: Mapping[str, Array],
    *,
    calls: int,
    warmup_calls: int,
    threads: int | None = None,
    allow_cpu: Sequence[str] = (),
) -> ProfiledCalls:
    """Time the nodes of a model in a separate session.

    Args:
        model: the ONNX file, or its content.
        provider: `cpu` or `cuda`.
        precision: of the model.
        feeds: one batch.
        calls: that are counted.
        warmup_calls: made before.
        threads: of the CPU; None: all cores of this process.
        allow_cpu: operators that may run on the CPU under another provider.

    Raises:
        EnvironmentProblem: the provider is not available here, or its profile has no times of its kernels.
        ModelError: ONNX Runtime cannot run the model, or its profile cannot be read.
    """
    if provider == TENSORRT.name:
        raise EnvironmentProblem(
            "TensorRT's engine is one node to ONNX Runtime.",
            "Build an engine, which has a profile: dskd-compress build BUNDLE",
        )
    call_ms = []
    with tempfile.TemporaryDirectory(prefix="dskd-profile-") as folder:
        runner = OnnxRuntimeRunner(
            model,
            provider=provider,
            threads=threads,
            precision=precision,
            profile=Path(folder) / "profile",
            allow_cpu=allow_cpu,
        )
        with runner:
            for _ in range(warmup_calls + calls):
                began = time.perf_counter()
                runner.infer(feeds)
                call_ms.append(1e3 * (time.perf_counter() - began))
            events = read_events(runner.end_profile())
            graph = OPTIMIZED if runner.facts.optimizer else AS_EXPORTED
    found = split_calls(events, warmup_calls + calls)[warmup_calls:]
    return ProfiledCalls([time_nodes(one, provider) for one in found], call_ms[warmup_calls:], graph)


def time_nodes(events: Sequence[Event], provider: str) -> list[TimedLayer]:
    """Read the time of every node of one call.

    On a GPU the event of a node is the time to launch it, so the times of its kernels count.

    Args:
        events: of one call.
        provider: `cpu` or `cuda`.

    Raises:
        EnvironmentProblem: a profile of a GPU provider without kernels.
        ModelError: an event has no duration.
    """
    nodes: list[Event] = []
    times_us: list[float] = []
    latest: dict[str, int] = {}  # name of a node's event -> its index, for the kernels that follow it
    has_kernels = False
    for event in events:
        if is_node(event) and arguments_of(event).get("op_name") not in _CONTAINERS:
            on_cpu = provider == CPU.name or arguments_of(event).get("provider") == CPU.ort_name
            latest[str(event.get("name"))] = len(nodes)
            nodes.append(event)
            times_us.append(duration_us(event) if on_cpu else 0.0)
        elif event.get("cat") == "Kernel":
            has_kernels = True
            parent = latest.get(str(arguments_of(event).get("parent_name")))
            if parent is None:  # a copy between two nodes
                nodes.append({"name": str(event.get("name", "")), "args": {"op_name": "kernel without a node"}})
                times_us.append(duration_us(event))
            else:
                times_us[parent] += duration_us(event)
    if provider != CPU.name and not has_kernels:
        raise EnvironmentProblem(
            f"This build of ONNX Runtime reports no kernel times on {provider}, only launch times of nodes.",
            "Build an engine, which has a profile: dskd-compress build BUNDLE",
        )
    return [
        TimedLayer(_label_node(event), _operator_of(event), microseconds, find_kernel_type(event))
        for event, microseconds in zip(nodes, times_us, strict=True)
    ]


def _operator_of(event: Event) -> str:
    return str(arguments_of(event).get("op_name", ""))


def _label_node(event: Event) -> str:
    """Name a node; one without a name by its operator and index in the graph."""
    return name_node(event) or f"{_operator_of(event)} {arguments_of(event).get('node_index', '')}".strip()
