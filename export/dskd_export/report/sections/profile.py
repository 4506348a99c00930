"""Where the time of each profiled model goes: its operators, its slowest nodes, and why one model is slower."""

from __future__ import annotations

from collections.abc import Sequence

from dskd_export.benchmark.profile import describe_overhead
from dskd_export.documents.benchmark import LayerKind, LayerProfile
from dskd_export.report import chart_parts as parts
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import Block, Figure, Gallery, Heading, Key, Note, Section
from dskd_export.report.load import Run
from dskd_export.report.tables import Cell, make_table, number

_KINDS: tuple[tuple[LayerKind, str, str], ...] = (
    ("compute", "computing", "var(--c1)"),
    ("quantize", "QuantizeLinear/DequantizeLinear alone", "var(--c2)"),
    ("reformat", "changing type or order alone", "var(--c3)"),
)


def sections_from_run(run: Run) -> list[Section]:
    """Make the section of profiles; none where nothing was profiled."""
    profiles = [] if run.benchmark is None else run.benchmark.profiles
    if not profiles:
        return []
    measured = [profile for profile in profiles if profile.sum_ms is not None]
    blocks: list[Block] = [
        Note(f"{profile.model}: {profile.summary}", "warning") for profile in measured if profile.slower_than
    ]
    if measured:
        blocks += [Gallery([_figure(measured)]), _summary_table(measured)]
        for index, profile in enumerate(measured):
            blocks += _layer_blocks(profile, f"profile-{index}")
    blocks += [
        Note(f"No profile of {_name(profile)}: {profile.reason}", "missing")
        for profile in profiles
        if profile.reason
    ]
    return [Section("profile", "Where the time goes", blocks)]


def _figure(profiles: Sequence[LayerProfile]) -> Figure:
    rows = [
        {"name": _label(profile), "kind": kind, "what": words, "value": parts.round_coordinate(ms)}
        for profile in profiles
        for kind, words, _ in _KINDS
        if (ms := _kind_ms(profile, kind)) > 0
    ]
    kinds = [kind for kind, _, _ in _KINDS]
    spec = {
        **parts.frame(height=45 + 34 * len(profiles)),
        "data": {"values": rows},
        "mark": {"type": "bar", "height": {"band": 0.5}},
        "encoding": {
            "y": {"field": "name", "type": "nominal", "sort": None, "title": None},
            "x": parts.quantitative("value", "time of all layers, one call (ms)", axis={"tickCount": 5}),
            "color": parts.series_scale("kind", kinds, [colour for _, _, colour in _KINDS]),
            "order": {"field": "kind"},
            "tooltip": [
                {"field": "name", "title": "model"},
                {"field": "what", "title": "time of"},
                {"field": "value", "title": "ms", "format": ".4~g"},
            ],
        },
    }
    words = "; ".join(f"{profile.model} {profile.summary}" for profile in profiles)
    return Figure(
        "profile-kinds",
        f"Time by kind of layer, batch {profiles[0].batch}",
        f"Stacked bars of the time of all layers of each model. {words}",
        spec,
        legend=[Key(words, colour) for _, words, colour in _KINDS],
    )


def _summary_table(profiles: Sequence[LayerProfile]) -> Block:
    note = (
        "Sum: of the medians of all nodes or layers over the profiled calls. p50: of a call without the profiler, "
        "from the table of latencies. A kernel that fuses computing with quantizing counts as computing."
    )
    rows = [
        {
            "model and runner": Cell(_name(profile)),
            "nodes": number(fmt.count(profile.layers)),
            "sum (ms)": number(profile.sum_ms),
            "p50 (ms)": number(profile.latency_p50_ms),
            "p50 with profiler (ms)": number(profile.call_p50_ms),
            "Q/DQ (%)": _percent(profile.quantize_share),
            "reformat (%)": _percent(profile.reformat_share),
            "computed in": Cell(profile.computed_in or "–"),
            "calls": number(fmt.count(profile.calls)),
        }
        for profile in profiles
    ]
    return make_table("profile-table", "Where the time of each model goes", rows, note)


def _layer_blocks(profile: LayerProfile, id: str) -> list[Block]:
    operators = [
        {
            "operator": Cell(row.operator),
            "kind": Cell(row.kind),
            "nodes": number(fmt.count(row.layers)),
            "time (µs)": number(row.p50_us),
            "share (%)": _percent(row.share),
        }
        for row in profile.operators
    ]
    slowest = [
        {
            "node": Cell(row.name, "code"),
            "operator": Cell(row.operator),
            "kind": Cell(row.kind),
            "time (µs)": number(row.p50_us),
            "share (%)": _percent(row.share),
        }
        for row in profile.slowest
    ]
    overhead = describe_overhead(profile)
    note = f"{profile.graph}." + (f" {overhead}." if overhead else "")
    name = _name(profile)
    return [
        Heading(id, f"{name}, batch {profile.batch}"),
        Note(f"{profile.summary}"),
        make_table(f"{id}-operators", f"Time by operator: {name}", operators, folded=True),
        make_table(f"{id}-slowest", f"Slowest nodes: {name}", slowest, note, folded=True),
    ]


def _kind_ms(profile: LayerProfile, kind: LayerKind) -> float:
    total_ms = profile.sum_ms or 0.0
    quantize_ms = (profile.quantize_share or 0.0) * total_ms
    reformat_ms = (profile.reformat_share or 0.0) * total_ms
    return {"quantize": quantize_ms, "reformat": reformat_ms, "compute": total_ms - quantize_ms - reformat_ms}[
        kind
    ]


def _percent(share: float | None) -> Cell:
    return number(None if share is None else f"{100 * share:.1f}")


def _name(profile: LayerProfile) -> str:
    runner = fmt.runner_name(profile.runner, profile.provider, profile.precision, profile.threads)
    return f"{profile.model}, {runner}"


def _label(profile: LayerProfile) -> str:
    """Name a bar: short enough for the axis of a phone, and different for each model."""
    where = {"onnxruntime": f"ONNX {profile.provider.upper()}", "tensorrt": "TensorRT"}
    return f"{profile.model} {profile.precision}, {where.get(profile.runner, profile.runner)}"
