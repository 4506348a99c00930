"""The steps of an export: what each did, and the optimisers of the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from dskd_export.documents.base import Document
from dskd_export.errors import require

NOTHING_TO_DO = "nothing to do"


class PassFacts(Document):
    """One step of an export: applied and proven equal, or left out with its reason."""

    name: str
    applied: bool
    max_abs_relative: float | None = Field(
        default=None,
        description="largest difference of the output / largest output, against the model before export",
    )
    reason: str | None = Field(default=None, description="why it was left out")


def round_difference(value: float) -> float:
    """Round to two digits: more of a rounding error says nothing, and differs between machines."""
    return float(f"{value:.1e}")


def graph_passes(*, slim: bool) -> dict[str, Callable[[Any], Any]]:
    """List the graph optimisers in order: name -> function from `onnx_ir` model to a new one."""
    return {"onnxscript optimizer": _run_onnxscript} | ({"onnxslim": _run_onnxslim} if slim else {})


def _run_onnxscript(graph: Any) -> Any:
    """Fold constants and batch norm; remove duplicate, unread and no-op nodes."""
    graph = graph.clone()
    require("onnxscript.optimizer", "onnx").optimize(graph)
    return graph


def _run_onnxslim(graph: Any) -> Any:
    """Apply onnxslim's patterns: more fusions, fewer reshapes."""
    ir, onnxslim = require("onnx_ir", "onnx"), require("onnxslim", "onnx")
    return ir.from_proto(onnxslim.slim(ir.to_proto(graph)))
