"""Find the number types that the layers of an engine run in, from TensorRT's own inspector.

TensorRT 10 writes "Bindings" and "Format/Datatype" ("Row major linear FP16 format", "Half"), TensorRT 11 and
TensorRT-RTX write "I/O Tensors" and "Datatype" ("Half"). TensorRT-RTX also logs its layers during
the build, which needs no GPU.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dskd_export.engine.document import BuildDocument, LayerPrecisions, TypeShare
from dskd_export.errors import GateFailed, ModelError

LEAST_SHARE = 0.8
"""Least share of the time of all layers in the requested types."""

# Narrow before wide, so that BFloat16 is not taken for Float16, nor Half of a format for anything else.
_TYPES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("bf16", re.compile(r"\b(bf16|bfloat16|bfloat)\b", re.I)),
    ("fp8", re.compile(r"\b(fp8|e4m3\w*|float8\w*)\b", re.I)),
    ("fp4", re.compile(r"\b(fp4|e2m1\w*|float4\w*)\b", re.I)),
    ("int8", re.compile(r"\bint8\b", re.I)),
    ("int4", re.compile(r"\bint4\b", re.I)),
    ("fp16", re.compile(r"\b(fp16|half|float16)\b", re.I)),
    ("fp32", re.compile(r"\b(fp32|float|float32)\b", re.I)),
)
# The narrowest number that a layer reads is what it computes in: the others are its scales and sums.
_WIDTH = {"fp4": 4, "int4": 4, "int8": 8, "fp8": 8, "fp16": 16, "bf16": 16, "fp32": 32}
_REFORMAT = re.compile(r"^reformat", re.I)
_MOVES = re.compile(r"^__myl_(Move|Cast|Tran|Repl|Resh)+_", re.I)


@dataclass(frozen=True)
class Layer:
    """One layer of an engine.

    Attributes:
        type: number type that it computes in; None: it has no tensors of numbers.
        reformat: it only changes type or order in memory.
        operator: TensorRT's type of layer, for example `CaskConvolution`.
    """

    name: str
    type: str | None
    reformat: bool
    operator: str = field(default="", compare=False)


def layers_of_json(text: str) -> list[Layer]:
    """Parse the layers in the inspector's JSON.

    Raises:
        ModelError: the engine was built without detailed layer names.
    """
    content: dict[str, Any] = json.loads(text)
    layers = content.get("Layers", [])
    if not layers or any(not isinstance(layer, Mapping) for layer in layers):
        raise ModelError("The engine does not name its layers.", "Build it again: dskd-compress build BUNDLE")
    return [_layer(layer) for layer in layers]


def _layer(layer: Mapping[str, Any]) -> Layer:
    name, kind = str(layer.get("Name", "")), str(layer.get("LayerType", ""))
    read = [_tensor_type(tensor) for tensor in layer.get("Inputs", [])]
    written = [_tensor_type(tensor) for tensor in layer.get("Outputs", [])]
    return Layer(name, _computed_in(read, written), is_reformat(name, kind), kind)


def _tensor_type(tensor: Any) -> str | None:
    if not isinstance(tensor, Mapping):
        return None
    return parse_type(str(tensor.get("Datatype") or tensor.get("DataType") or tensor.get("Format/Datatype") or ""))


def layers_of_log(text: str) -> list[Layer]:
    """Parse the layers in a build log, one per line; empty if it lists none."""
    found = []
    for line in text.split("\nI/O Tensors:")[0].splitlines():
        match = re.match(
            r"Name: (.*), LayerType: (\w+), Inputs: (\[.*?\]), Constants: .*, Outputs: (\[.*?\]), Tac", line
        )
        if match is None:
            continue
        name, kind, inputs, outputs = match.groups()
        read, written = (
            [parse_type(word) for word in re.findall(r"Datatype: ([\w/]+)", part)] for part in (inputs, outputs)
        )
        found.append(Layer(name, _computed_in(read, written), is_reformat(name, kind), kind))
    return found


def parse_type(text: str) -> str | None:
    """Parse TensorRT's name of a number type; None for indices, booleans and shapes."""
    return next((name for name, words in _TYPES if words.search(text)), None)


def _computed_in(read: list[str | None], written: list[str | None]) -> str | None:
    numbers = [name for name in read if name] or [name for name in written if name]
    return min(numbers, key=_WIDTH.__getitem__) if numbers else None


def is_reformat(name: str, kind: str) -> bool:
    """Whether a layer of this name and type only changes type or order in memory."""
    return bool(_REFORMAT.match(kind) or _REFORMAT.match(name) or _MOVES.match(name))


def summarize_layers(
    layers: list[Layer],
    *,
    source: str = "inspector",
    times_ms: Mapping[str, float] | None = None,
    not_timed: str = "",
) -> LayerPrecisions:
    """Count the layers of an engine by number type, and sum their times.

    Args:
        layers: all of them.
        source: `inspector` or `build log`.
        times_ms: time of each layer, by name; None: not timed.
        not_timed: why not.
    """
    typed = [layer for layer in layers if layer.type]
    total_ms = sum(times_ms.values()) if times_ms else 0.0
    reformat = [layer for layer in layers if layer.reformat]

    def time_share(some: list[Layer]) -> float | None:
        if not times_ms or total_ms <= 0:
            return None
        return sum(times_ms.get(layer.name, 0.0) for layer in some) / total_ms

    counts = Counter(layer.type for layer in typed)
    types = [
        TypeShare(
            type=str(name),
            layers=count,
            layer_share=count / len(typed),
            time_share=time_share([layer for layer in typed if layer.type == name]),
        )
        for name, count in counts.items()
    ]
    timed = total_ms > 0
    return LayerPrecisions.model_validate(
        {
            "source": source,
            "layers": len(typed),
            "untyped_layers": len(layers) - len(typed),
            "types": sorted(types, key=lambda share: (-(share.time_share or 0.0), -share.layers, share.type)),
            "reformat_layers": [layer.name for layer in reformat],
            "reformat_layer_share": len(reformat) / len(layers) if layers else 0.0,
            "reformat_time_share": time_share(reformat),
            "not_timed": "" if timed else not_timed or "TensorRT reported no times of layers",
        }
    )


def format_shares(truth: LayerPrecisions) -> str:
    """Format as `fp16 90% of layers and 96% of time, fp32 10% of layers and 4% of time`."""
    return ", ".join(
        f"{share.type} {share.layer_share:.0%} of layers"
        + ("" if share.time_share is None else f" and {share.time_share:.0%} of time")
        for share in truth.types
    )


def refuse_other_precision(document: BuildDocument) -> None:
    """Check that an engine runs in the requested precision.

    At least one layer must run in it, and at least 80 % of the time must be spent in it and in the type of the
    layers that were not quantized. Without times only the first is checked.

    Raises:
        GateFailed: it runs in something else.
    """
    truth = document.truth
    if truth is None:
        return
    wanted = {document.precision, *((document.rest,) if document.precision in ("int8", "fp8") else ())}
    shares = {share.type: share for share in truth.types}
    shown = format_shares(truth)
    hint = (
        "Export again with a higher --set export.quantize.max_kl=VALUE, or ship fp32; export.json lists layers "
        "kept in fp32."
    )
    if document.precision not in shares:
        raise GateFailed(
            f"No layer of the {document.precision} engine runs in {document.precision}: {shown}.", hint
        )
    times = [share.time_share for name, share in shares.items() if name in wanted]
    if None in times:
        return
    in_wanted = round(sum(time for time in times if time is not None), 9)
    if in_wanted < LEAST_SHARE:
        raise GateFailed(
            f"Only {in_wanted:.0%} of the time of the {document.precision} engine is spent in "
            f"{' and '.join(sorted(wanted))}, {LEAST_SHARE:.0%} is required: {shown}.",
            hint,
        )


def runs_in_its_precision(document: BuildDocument) -> bool:
    """Whether an engine runs in its precision, as far as its layers were counted."""
    try:
        refuse_other_precision(document)
    except GateFailed:
        return False
    return True
