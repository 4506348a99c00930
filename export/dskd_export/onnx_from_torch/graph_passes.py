"""Optimisers of the ONNX graph; each gives a new graph and leaves the old one as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dskd_export.errors import require


@dataclass(frozen=True)
class GraphPass:
    """An optimiser of `onnx_ir` models.

    Attributes:
        name: for the records.
        apply: old model -> new model.
    """

    name: str
    apply: Callable[[Any], Any]


def _onnxscript(graph: Any) -> Any:
    """Folds constants and batch norm, removes what nobody reads, what is there twice, and what does nothing."""
    graph = graph.clone()
    require("onnxscript.optimizer", "onnx").optimize(graph)
    return graph


def _onnxslim(graph: Any) -> Any:
    """onnxslim's patterns: more fusions, fewer reshapes."""
    ir, onnxslim = require("onnx_ir", "onnx"), require("onnxslim", "onnx")
    slimmed = onnxslim.slim(ir.to_proto(graph))
    return ir.from_proto(slimmed)


def graph_passes(*, slim: bool) -> list[GraphPass]:
    """The optimisers in their order."""
    passes = [GraphPass("onnxscript optimizer", _onnxscript)]
    if slim:
        passes.append(GraphPass("onnxslim", _onnxslim))
    return passes
