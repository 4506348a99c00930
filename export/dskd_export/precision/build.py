"""Build one precision of a model: check the tool, convert, score, search where it lost too much, finish."""

from __future__ import annotations

import difflib
import importlib.util
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from dskd_export.documents.export import ScoreFacts, SearchFacts
from dskd_export.documents.precision import QUANTIZED, Precision, PrecisionMetadata
from dskd_export.errors import UsageError
from dskd_export.precision import graph, modelopt
from dskd_export.precision.calibration import Calibration
from dskd_export.precision.half import Half, half_precision
from dskd_export.precision.quantize import (
    Method,
    Producer,
    half_rest,
    keep_float,
    quantize,
    quantized_nodes,
    store_weights,
)
from dskd_export.precision.scoring import reference_logits, score_model
from dskd_export.precision.search import search_layers


@dataclass(frozen=True)
class Settings:
    """How the precisions of a model are made.

    Attributes:
        producer: tool; `auto`: ModelOpt where it is installed, else ONNX Runtime's.
        method: of the calibration of int8.
        rest: type of what a quantised model does not quantise.
        keep: names of nodes that stay fp32 in every precision.
        search: put layers back to floating point where the score is not good enough.
        max_kl: largest mean KL to fp32 that is good enough, in nats. Accuracy is for the gate to judge: on as
            many images as a search can afford, one that flips would send it looking for nothing.
        max_kept: largest share of the layers that the search may put back.
    """

    producer: Producer = "auto"
    method: Method = "max"
    rest: Literal["fp32", "fp16"] = "fp32"
    keep: tuple[str, ...] = ()
    search: bool = True
    max_kl: float = 0.01
    max_kept: float = 0.5

    def good(self, score: ScoreFacts) -> bool:
        """Whether a score is good enough to leave every layer as it is."""
        return score.kl <= self.max_kl


@dataclass(frozen=True)
class PrecisionModel:
    """A model of a precision.

    Attributes:
        model: serialised.
        metadata: what made it.
        opset: of the file, higher than the fp32 model's for bf16.
        kept: nodes that stayed in floating point, or in fp32 for the half precisions.
        search: None where it was disabled.
        seconds: that all of it took.
    """

    model: bytes
    metadata: PrecisionMetadata
    opset: int
    kept: tuple[str, ...]
    search: SearchFacts | None
    seconds: float


def build_precision(
    model: bytes, precision: Precision, calibration: Calibration, searched: Calibration, settings: Settings
) -> PrecisionModel:
    """Make a precision of an fp32 classifier.

    Args:
        model: serialised fp32 ONNX model, one input and one output.
        precision: any but fp32.
        calibration: images that the ranges are measured on.
        searched: images that the search scores on; they may be among the first.
        settings: how.

    Raises:
        MissingExtra: a tool that is needed is not installed.
        UsageError: the tool cannot do what the settings require.
        ModelError: the tool failed.
        ValueError: precision fp32.
    """
    if precision == "fp32":
        raise ValueError("fp32 is the source of the other precisions")
    began = time.perf_counter()
    _check_names(model, settings.keep)
    make = _make_quantized if precision in QUANTIZED else _make_half
    data, metadata, opset, kept, search = make(model, precision, (calibration, searched), settings)
    return PrecisionModel(data, metadata, opset, kept, search, time.perf_counter() - began)


def _check_names(model: bytes, names: Sequence[str]) -> None:
    """Refuse names that no node has: they would be ignored silently."""
    there = [node.name for node in graph.load(model).graph.node]
    for name in names:
        if name not in there:
            close = difflib.get_close_matches(name, there, 1)
            raise UsageError(
                f"export.quantize.keep: the model has no node {name}.",
                f"Do you mean {close[0]}?" if close else "The names are in export.json, under layers.",
            )


_Images = tuple[Calibration, Calibration]  # to calibrate on, to search on
# Of a `PrecisionModel`: model, metadata, opset, kept, search.
_Made = tuple[bytes, PrecisionMetadata, int, tuple[str, ...], SearchFacts | None]


def _make_quantized(model: bytes, precision: Precision, images: _Images, settings: Settings) -> _Made:
    calibration, searched = images
    source = graph.load(model)
    kind = cast(Literal["int8", "fp8"], precision)
    pairs, tool = quantize(source, kind, calibration, producer=settings.producer, method=settings.method)
    pairs = keep_float(pairs, settings.keep)
    if not quantized_nodes(pairs):
        raise UsageError(
            f"export.quantize.keep leaves no layer to quantise to {precision}.",
            f"Shorten the list, or leave {precision} out of export.precisions.",
        )
    search, added = None, tuple[str, ...]()
    if settings.search:
        reference_NK = reference_logits(source, searched)

        def evaluate(nodes: frozenset[str]) -> ScoreFacts:
            # ONNX Runtime's optimiser does not support fp8.
            return score_model(keep_float(pairs, nodes), reference_NK, searched, optimise=precision == "int8")

        added, search = search_layers(
            quantized_nodes(pairs), evaluate, settings.good, images=len(searched), max_share=settings.max_kept
        )
        pairs = keep_float(pairs, added)
    made = store_weights(pairs)
    if settings.rest == "fp16":
        made = half_rest(made)
    metadata = PrecisionMetadata(precision=precision, rest=settings.rest, producer=tool)
    data = graph.finish(made, metadata, source)
    return data, metadata, graph.opset_of(made), (*settings.keep, *added), search


def _make_half(model: bytes, precision: Precision, images: _Images, settings: Settings) -> _Made:
    calibration, searched = images
    kind = cast(Literal["fp16", "bf16"], precision)
    half = plain = half_precision(model, kind, calibration, keep=settings.keep, producer=settings.producer)
    search = None
    if settings.search:
        source = graph.load(model)
        reference_NK = reference_logits(source, searched)

        def convert(nodes: Collection[str]) -> Half:
            keep = (*settings.keep, *sorted(nodes))
            return half_precision(model, kind, calibration, keep=keep, producer=settings.producer)

        def evaluate(nodes: frozenset[str]) -> ScoreFacts:
            tried = convert(nodes) if nodes else plain
            return score_model(graph.load(tried.model), reference_NK, searched)

        candidates = [node.name for node in source.graph.node if node.name not in half.kept]
        if candidates:
            added, search = search_layers(
                candidates, evaluate, settings.good, images=len(searched), max_share=settings.max_kept
            )
            half = convert(added) if added else half
    return half.model, half.metadata, half.opset, half.kept, search


Tool = Literal["modelopt", "onnxconverter_common", "onnxruntime"]


def tool_of(precision: Precision, settings: Settings) -> Tool:
    """Name the package that makes a precision here, installed or not.

    Raises:
        UsageError: the recipe names a tool that cannot make it.
    """
    only_modelopt = precision in ("bf16", "fp8") or (precision in QUANTIZED and settings.rest == "fp16")
    if only_modelopt and settings.producer == "onnxruntime" and precision != "int8":
        raise UsageError(
            f"{precision} is made by ModelOpt only, and export.quantize.producer is onnxruntime.",
            f"Set export.quantize.producer=auto, or leave {precision} out of export.precisions.",
        )
    if (
        only_modelopt
        or settings.producer == "modelopt"
        or (settings.producer == "auto" and modelopt.is_installed())
    ):
        return "modelopt"
    return "onnxruntime" if precision in QUANTIZED else "onnxconverter_common"


def list_tool_modules(precision: Precision, settings: Settings) -> tuple[str, ...]:
    """List the modules that make a precision here, installed or not.

    Raises:
        UsageError: as `tool_of`.
    """
    tool = tool_of(precision, settings)
    return modelopt.NEEDED if tool == "modelopt" else (tool,)


def is_installed(module: str) -> bool:
    """Whether a module can be found; imports nothing."""
    return importlib.util.find_spec(module) is not None
