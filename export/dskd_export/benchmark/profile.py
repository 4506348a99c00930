"""Find where the time of a model goes, from the times of its nodes or layers, and why it is slower than another.

Each layer counts with the median of its calls, so one slow call does not decide; shares are of the sum of these
medians. A kernel that fuses computing with quantizing counts as computing: it cannot be split.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from dskd_export.documents.benchmark import LayerKind, LayerProfile, LayerTime, OperatorTime
from dskd_export.engine.inspect import is_reformat
from dskd_export.files.json_text import one_line
from dskd_export.runtime.layer_times import ProfiledCalls

MOST_LAYERS = 10
MOST_OPERATORS = 20
NAMED_SHARE = 0.1
"""Share of the time from which quantizing or reformatting is named as a cause."""

_LONGEST_NAME = 160
_TOLERANCE = 0.3
_UNKNOWN = "unknown"

_QUANTIZE = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Quantize", "Dequantize"}
_REFORMAT = {
    *("Cast", "Transpose", "ReorderInput", "ReorderOutput"),
    *("MemcpyFromHost", "MemcpyToHost", "Reformat"),
}
# Of TensorRT a fused layer has the names of its nodes with plus signs; TensorRT-RTX writes Q/DQ as arithmetic with
# a rounding: `__myl_MulMinMaxRounCast_myl0_1`.
_QUANTIZES = re.compile(r"(?<![A-Za-z])(Quantize|Dequantize)(Linear)?(?![A-Za-z])")
_MYELIN = re.compile(r"^__myl_([A-Za-z]+)_")
_MYELIN_QUANTIZE = {"Mul", "Div", "Min", "Max", "Roun", "Clip", "Cast", "Quan", "Dequ"}
_MYELIN_MOVES = {"Move", "Cast", "Tran", "Repl", "Resh", "Conc", "Slic"}

_BITS = {"fp32": 32, "fp16": 16, "bf16": 16, "int8": 8, "fp8": 8}


@dataclass(frozen=True)
class _Layer:
    name: str
    operator: str
    kind: LayerKind
    microseconds: float
    number_type: str | None


def classify_layer(name: str, operator: str, runner: str) -> LayerKind:
    """Classify a node or layer: it only quantizes or dequantizes, only changes type or order, or computes.

    Args:
        name: of the layer.
        operator: of the node, or the type of the layer.
        runner: onnxruntime, whose operators decide; tensorrt, whose names decide where its types do not.
    """
    if operator in _QUANTIZE:
        return "quantize"
    if operator in _REFORMAT:
        return "reformat"
    if runner != "tensorrt":
        return "compute"
    fused = _MYELIN.match(name)
    if fused:
        steps = set(re.findall("[A-Z][a-z]*", fused[1]))
        if steps & {"Roun", "Quan", "Dequ"} and steps <= _MYELIN_QUANTIZE | _MYELIN_MOVES:
            return "quantize"
        return "reformat" if steps <= _MYELIN_MOVES else "compute"
    if is_reformat(name, operator):
        return "reformat"
    return "quantize" if all(_QUANTIZES.search(part) for part in name.split(" + ")) else "compute"


def summarize_calls(profile: LayerProfile, profiled: ProfiledCalls) -> LayerProfile:
    """Fill the times of a profile.

    Args:
        profile: names its model.
        profiled: its calls. A layer that a call lacks took no time in it.
    """
    layers = sorted(_take_medians(profiled, profile.runner), key=lambda layer: -layer.microseconds)
    total_us = sum(layer.microseconds for layer in layers)
    if not total_us:
        return profile.model_copy(update={"reason": "the profiler reported no time for any layer"})
    found = profile.model_copy(
        update={
            "graph": profiled.graph,
            "calls": len(profiled.calls),
            "layers": len(layers),
            "sum_ms": total_us / 1e3,
            "call_p50_ms": median(profiled.call_ms),
            "quantize_share": _share_of("quantize", layers, total_us),
            "reformat_share": _share_of("reformat", layers, total_us),
            "computed_in": _find_number_type(layers),
            "slowest": [
                LayerTime(
                    name=layer.name,
                    operator=layer.operator,
                    kind=layer.kind,
                    p50_us=layer.microseconds,
                    share=layer.microseconds / total_us,
                )
                for layer in layers[:MOST_LAYERS]
            ],
            "operators": _sum_operators(layers, total_us)[:MOST_OPERATORS],
        }
    )
    return found.model_copy(update={"summary": f"{_describe_model(found)}: {_describe_time(found)}."})


def explain_slower(profiles: Sequence[LayerProfile]) -> list[LayerProfile]:
    """Add to each summary whether a wider precision is faster on the same runner, and why.

    Faster is decided by the 95 % intervals of the latency without a profiler, not by the profile.
    """
    found = []
    for profile in profiles:
        rivals = [one for one in profiles if _is_wider(one, profile) and _is_faster(one, profile)]
        own = profile.latency_p50_ms
        if profile.sum_ms is None or own is None or not rivals:
            found.append(profile)
            continue
        best = min(rivals, key=_value_of_latency)
        summary = (
            f"{_describe_model(profile)} is slower than {best.precision} "
            f"({own.value:.3g} against {_value_of_latency(best):.3g} ms): {_describe_time(profile)}."
        )
        found.append(profile.model_copy(update={"summary": summary, "slower_than": best.precision}))
    return found


def measure_overhead(profile: LayerProfile) -> float | None:
    """Measure what the profiler adds to a call, as a fraction of its latency; None where either is unknown."""
    if profile.call_p50_ms is None or profile.latency_p50_ms is None or profile.latency_p50_ms.value <= 0:
        return None
    return profile.call_p50_ms / profile.latency_p50_ms.value - 1


def is_plausible(profile: LayerProfile) -> bool:
    """Whether the layers add up to the latency without the profiler, within 30 %; True where that is unknown."""
    if profile.sum_ms is None or measure_overhead(profile) is None:
        return True
    return abs(profile.sum_ms / _value_of_latency(profile) - 1) <= _TOLERANCE


def describe_overhead(profile: LayerProfile) -> str:
    """State how the sum of the layers compares with the latency without a profiler; empty without either."""
    overhead = measure_overhead(profile)
    if profile.sum_ms is None or overhead is None:
        return ""
    plain_ms = _value_of_latency(profile)
    return (
        f"{profile.layers} nodes add up to {profile.sum_ms:.3g} ms, {profile.sum_ms / plain_ms:.0%} of the "
        f"{plain_ms:.3g} ms without the profiler, which changes the time of a call by {overhead:+.0%}"
    )


def _take_medians(profiled: ProfiledCalls, runner: str) -> list[_Layer]:
    """Take the median of each layer over the calls; layers of one name differ by their order in a call."""
    times: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    types: dict[tuple[str, str, int], str | None] = {}
    for call in profiled.calls:
        seen: dict[tuple[str, str], int] = defaultdict(int)
        for layer in call:
            key = (layer.name, layer.operator, seen[layer.name, layer.operator])
            seen[layer.name, layer.operator] += 1
            times[key].append(layer.microseconds)
            types[key] = types.get(key) or layer.number_type
    calls = len(profiled.calls)
    return [
        _Layer(
            _shorten(name) or _UNKNOWN,
            _shorten(operator) or _UNKNOWN,
            classify_layer(name, operator, runner),
            median([*found, *([0.0] * (calls - len(found)))]),
            types[name, operator, index],
        )
        for (name, operator, index), found in times.items()
    ]


def _sum_operators(layers: Sequence[_Layer], total_us: float) -> list[OperatorTime]:
    groups: dict[tuple[str, LayerKind], list[float]] = defaultdict(list)
    for layer in layers:
        groups[layer.operator, layer.kind].append(layer.microseconds)
    rows = [
        OperatorTime(operator=operator, kind=kind, layers=len(us), p50_us=sum(us), share=sum(us) / total_us)
        for (operator, kind), us in groups.items()
    ]
    return sorted(rows, key=lambda row: -row.p50_us)


def _share_of(kind: LayerKind, layers: Sequence[_Layer], total_us: float) -> float:
    return sum(layer.microseconds for layer in layers if layer.kind == kind) / total_us


def _find_number_type(layers: Sequence[_Layer]) -> str | None:
    times: dict[str, float] = defaultdict(float)
    for layer in layers:
        if layer.number_type is not None and layer.kind == "compute":
            times[layer.number_type] += layer.microseconds
    return max(times, key=times.__getitem__) if times else None


def _describe_model(profile: LayerProfile) -> str:
    return f"{profile.precision} on {profile.runner}:{profile.provider}"


def _describe_time(profile: LayerProfile) -> str:
    """List the causes in words, the largest share first; what computes where there is none."""
    shares: list[tuple[float, LayerKind]] = [
        (profile.quantize_share or 0.0, "quantize"),
        (profile.reformat_share or 0.0, "reformat"),
    ]
    causes = [
        f"{share:.0%} of the time is {_name_operators(profile, kind)}"
        for share, kind in sorted(shares, reverse=True)
        if share >= NAMED_SHARE
    ]
    if not causes:
        first = profile.operators[0]
        causes = [f"{first.share:.0%} of the time is {first.operator}"]
    if profile.computed_in is not None and profile.computed_in != profile.precision:
        causes.append(f"the provider computes in {profile.computed_in}")
    return ", ".join(causes)


def _name_operators(profile: LayerProfile, kind: LayerKind) -> str:
    """Name the operators of a kind; of TensorRT, whose types of layers say little, name the kind."""
    names = list(dict.fromkeys(row.operator for row in profile.operators if row.kind == kind))
    if profile.runner == "tensorrt" or not names:
        return {"quantize": "layers that only quantize", "reformat": "layers that only change type or order"}[kind]
    return "/".join(names[:3])


def _is_wider(one: LayerProfile, than: LayerProfile) -> bool:
    keys = ("model", "runner", "provider", "batch", "threads")
    same = all(getattr(one, key) == getattr(than, key) for key in keys)
    return same and _BITS.get(one.precision, 0) > _BITS.get(than.precision, 0)


def _is_faster(one: LayerProfile, than: LayerProfile) -> bool:
    first, second = one.latency_p50_ms, than.latency_p50_ms
    return first is not None and second is not None and first.high < second.low


def _value_of_latency(profile: LayerProfile) -> float:
    assert profile.latency_p50_ms is not None  # callers choose by it
    return profile.latency_p50_ms.value


def _shorten(name: str) -> str:
    """Cut the middle out of a long name, which comes from the model's file; no control characters."""
    return _cut(one_line(_cut(name)))


def _cut(text: str) -> str:
    half = (_LONGEST_NAME - 3) // 2
    return text if len(text) <= _LONGEST_NAME else f"{text[:half]}...{text[-half:]}"
