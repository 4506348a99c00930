"""Check on which provider each node of a session runs; another one than requested is an error."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dskd_export import codes
from dskd_export.errors import EnvironmentProblem
from dskd_export.runtime.profile_events import arguments_of, is_node, name_node, read_events
from dskd_export.runtime.providers import Provider
from dskd_export.runtime.runner import Array

RECORD = "session.record_ep_graph_assignment_info"
"""Session setting that makes ONNX Runtime record the assignment; since 1.24."""

_NAMED = 5


@dataclass(frozen=True)
class Assigned:
    """A node, and ONNX Runtime's name of its provider."""

    node: str
    operator: str
    provider: str

    @property
    def shown(self) -> str:
        """For example `Conv 'features.0'`."""
        return f"{self.operator} '{self.node}'" if self.node else self.operator


def can_record(session_class: type) -> bool:
    """Whether this ONNX Runtime records the assignment; an older one has to be profiled."""
    return hasattr(session_class, "get_provider_graph_assignment_info")


def list_recorded(session: Any) -> list[Assigned]:
    """List the recorded assignment of a session that was opened with `RECORD`."""
    return [
        Assigned(node.name, node.op_type, part.ep_name)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]


def list_profiled(session: Any, feeds: Mapping[str, Array]) -> list[Assigned]:
    """List the assignment in a profile; the session must be opened with profiling, which ends here.

    Args:
        session: an InferenceSession.
        feeds: one valid input.
    """
    session.run(None, dict(feeds))
    path = Path(session.end_profiling())
    try:
        events = read_events(path)
    finally:
        path.unlink(missing_ok=True)
    found = {}
    for event in events:
        arguments = arguments_of(event)
        if is_node(event) and "provider" in arguments:
            node = name_node(event)
            found[node] = Assigned(node, arguments.get("op_name", ""), arguments["provider"])
    return list(found.values())


def make_profile_prefix() -> str:
    """Choose the path prefix of a profile."""
    return str(Path(tempfile.gettempdir()) / "dskd-assignment")


def make_zeros(inputs: Sequence[Any]) -> dict[str, Array]:
    """Make zeros for a session's `get_inputs()`; an open dimension is 1."""
    types = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
    return {
        item.name: np.zeros([size if isinstance(size, int) else 1 for size in item.shape], types[item.type])
        for item in inputs
    }


def refuse_others(
    nodes: Sequence[Assigned],
    provider: Provider,
    allow_cpu: Sequence[str],
    missing: Callable[[], Sequence[str]],
) -> None:
    """Require that every node runs on the requested provider.

    Args:
        nodes: of the session.
        provider: the requested one.
        allow_cpu: operators that may run on the CPU.
        missing: lists the problems of the provider; called if a node runs elsewhere.

    Raises:
        EnvironmentProblem: names the nodes, and the missing library if there is one.
    """
    others = [
        one
        for one in nodes
        if one.provider != provider.ort_name
        and not (one.provider == "CPUExecutionProvider" and one.operator in allow_cpu)
    ]
    if not others:
        return
    shown = ", ".join(f"{one.shown} on {one.provider}" for one in others[:_NAMED])
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    reasons = "; ".join(missing()) or f"{provider.ort_name} has no kernel for it"
    operators = ",".join(dict.fromkeys(one.operator for one in others))
    raise EnvironmentProblem(
        f"{len(others)} of {len(nodes)} nodes do not run on {provider.ort_name}: {shown}{more}: {reasons}.",
        f"Allow them on the CPU with --allow-cpu {operators}, or choose another --provider.",
        code=codes.NODE_ELSEWHERE,
    )
