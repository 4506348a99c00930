"""Draw line charts: training curves with their legend and figures in words, and latency distributions.

Vega-Lite specs as plain dicts, one function a chart; every axis names its unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dskd_export.documents.base import Interval
from dskd_export.report.blocks import Figure, Key
from dskd_export.report.chart_parts import (
    MUTED,
    TEACHER,
    Spec,
    frame,
    keys_for,
    log_ticks,
    quantitative,
    round_coordinate,
    series_scale,
)
from dskd_export.report.series import Array, smooth, thin, window_for
from dskd_export.report.tables import Cell, number

MOST_POINTS = 400  # of a series; the page is at most about 1,000 px wide


@dataclass(frozen=True)
class Curve:
    """A cumulative distribution of latencies with the percentiles to mark on it."""

    key: Key
    milliseconds: Sequence[float]
    shares: Sequence[float]
    marks: Mapping[str, tuple[float, float]]  # "p50" -> (ms, share)


def step_chart(steps: Array, series: Mapping[str, Array], axis: str, keys: Sequence[Key], log: bool) -> Spec:
    """Draw smoothed curves over the optimisation steps; hovering a step shows its values.

    Args:
        steps: N step numbers, rising.
        series: name -> N values; NaN where a term is missing.
        axis: title of the value axis, with its unit.
        keys: the legend, one for each series in the same order.
        log: logarithmic value axis, for values that are all positive.
    """
    index = thin(len(steps), MOST_POINTS)
    window = window_for(len(steps))
    smoothed = {name: smooth(values, window)[index] for name, values in series.items()}
    # Field names are numbered: a term's own name may hold characters that mean something to Vega.
    rows = [
        {"x": int(steps[at])}
        | {f"v{i}": round_coordinate(values[row]) for i, values in enumerate(smoothed.values())}
        for row, at in enumerate(index)
    ]
    fields = [f"v{i}" for i in range(len(smoothed))]
    value = quantitative("value", axis)
    if log:
        drawn = np.concatenate([values[np.isfinite(values)] for values in smoothed.values()])
        ticks = log_ticks(float(drawn.min()), float(drawn.max()))
        value |= {"scale": {"type": "log", "nice": False}, "axis": {"values": ticks, "format": "~g"}}
    x = quantitative("x", "step (updates)", axis={"format": ",d", "tickCount": 5})
    lines = {
        "transform": [
            {"fold": fields, "as": ["series", "value"]},
            {"filter": "isValid(datum.value)"},
        ],
        "mark": {"type": "line", "strokeWidth": 1.6, "clip": True},
        "encoding": {
            "x": {**x, "scale": {"nice": False}},
            "y": value,
            "color": series_scale("series", fields, [key.colour for key in keys]),
            "strokeDash": series_scale("series", fields, [list(key.dash) or [1, 0] for key in keys]),
        },
    }
    tooltip = [{"field": "x", "title": "step", "format": ",d"}] + [
        {"field": field, "title": key.label, "format": ".4~g"} for field, key in zip(fields, keys, strict=True)
    ]
    select = {"type": "point", "encodings": ["x"], "nearest": True, "on": "pointerover", "clear": "pointerout"}
    hover = {
        "params": [{"name": "hover", "select": select}],
        "mark": {"type": "rule", "color": MUTED},
        "encoding": {
            "x": x,
            "tooltip": tooltip,
            "opacity": {"condition": {"param": "hover", "empty": False, "value": 0.7}, "value": 0},
        },
    }
    return {**frame(), "data": {"values": rows}, "layer": [lines, hover]}


def accuracy_chart(
    epochs: Sequence[int], top1: Sequence[float], best: int, colour: str, reference: Interval | None
) -> Spec:
    """Draw validation accuracy over the epochs; the best epoch is marked, the teacher is a line in its interval.

    Args:
        epochs: counted from 1.
        top1: fractions in [0, 1], one for each epoch.
        best: the epoch that was kept, counted from 1.
        colour: of the curve.
        reference: the teacher's accuracy, a fraction.
    """
    rows = [{"epoch": epoch, "top1": round(100 * value, 3)} for epoch, value in zip(epochs, top1, strict=True)]
    x = quantitative(
        "epoch", "epoch", axis={"format": "d", "tickMinStep": 1, "tickCount": 8}, scale={"nice": False}
    )
    tooltip = [{"field": "epoch", "format": "d"}, {"field": "top1", "title": "top-1 (%)", "format": ".2f"}]

    def y(field: str) -> Spec:
        return quantitative(field, "top-1 accuracy (%)", scale={"zero": False})

    layers: list[Spec] = []
    if reference is not None:
        band = {"low": 100 * reference.low, "high": 100 * reference.high, "value": 100 * reference.value}
        data = {"data": {"values": [band]}}
        area = {"mark": {"type": "rect", "color": TEACHER, "opacity": 0.14}}
        rule = {"mark": {"type": "rule", "color": TEACHER, "strokeDash": [6, 3], "strokeWidth": 1.4}}
        layers.append({**data, **area, "encoding": {"y": y("low"), "y2": {"field": "high"}}})
        layers.append({**data, **rule, "encoding": {"y": y("value")}})
    points = len(rows) <= 60 and {"size": 16, "color": colour, "filled": True}
    line = {"type": "line", "color": colour, "strokeWidth": 1.8, "point": points}
    diamond = {"type": "point", "color": colour, "shape": "diamond", "size": 130, "filled": True, "opacity": 1}
    encoding = {"x": x, "y": y("top1"), "tooltip": tooltip}
    layers.append({"mark": line, "encoding": encoding})
    best_only = [{"filter": {"field": "epoch", "equal": best}}]
    layers.append({"transform": best_only, "mark": diamond, "encoding": encoding})
    return {**frame(), "data": {"values": rows}, "layer": layers}


def latency_chart(curves: Sequence[Curve]) -> Spec:
    """Draw cumulative distributions of the latency; the marks are p50, p90, p99 and p99.9."""
    names = [f"s{index}" for index in range(len(curves))]
    lines = [
        {"series": name, "ms": round_coordinate(ms), "share": round(100 * share, 3)}
        for name, curve in zip(names, curves, strict=True)
        for ms, share in zip(curve.milliseconds, curve.shares, strict=True)
    ]
    marks = [
        {"series": name, "runner": curve.key.label, "mark": label}
        | {"ms": round_coordinate(ms), "share": round(100 * share, 3)}
        for name, curve in zip(names, curves, strict=True)
        for label, (ms, share) in curve.marks.items()
    ]
    every = [ms for curve in curves for ms in curve.milliseconds]
    x = quantitative(
        "ms",
        "latency of one call (ms, log scale)",
        scale={"type": "log", "nice": False, "padding": 12},
        axis={"format": "~g", "values": log_ticks(min(every), max(every))},
    )
    y = quantitative(
        "share", "calls at least as fast (%)", scale={"domain": [0, 100]}, axis={"values": [0, 25, 50, 75, 100]}
    )
    colour = series_scale("series", names, [curve.key.colour for curve in curves])
    dash = series_scale("series", names, [list(curve.key.dash) or [1, 0] for curve in curves])
    tooltip = [
        {"field": "runner", "title": "runner"},
        {"field": "mark", "title": "percentile"},
        {"field": "ms", "title": "ms", "format": ".4~g"},
    ]
    return {
        **frame(height=240),
        "layer": [
            {
                "data": {"values": lines},
                "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 1.6},
                "encoding": {"x": x, "y": y, "color": colour, "strokeDash": dash},
            },
            {
                "data": {"values": marks},
                "mark": {"type": "point", "filled": True, "size": 42, "opacity": 1},
                "encoding": {"x": x, "y": y, "color": colour, "tooltip": tooltip},
            },
        ],
    }


def step_figure(
    id: str,
    title: str,
    steps: Sequence[float],
    series: Mapping[str, Array],
    axis: str,
    *,
    colour: str | None = None,
    log: bool = False,
    caption: str = "",
) -> Figure:
    """Draw curves over the optimisation steps.

    Args:
        id: of the HTML element.
        title: above the chart.
        steps: N step numbers, rising.
        series: name -> N values; NaN where there is none.
        axis: title of the value axis, with its unit.
        colour: of a single curve, which then needs no legend; None: one each.
        log: logarithmic value axis.
        caption: below the chart.
    """
    keys = keys_for(list(series)) if colour is None else [Key(title, colour)]
    spec = step_chart(np.array(steps, dtype=float), series, axis, keys, log)
    words = "; ".join(f"{name}: {describe_values(values)}" for name, values in series.items())
    legend = keys if colour is None else ()
    return Figure(id, title, f"Line chart over the training steps. {words}.", spec, legend=legend, caption=caption)


def value_cells(values: Array) -> dict[str, Cell]:
    """Sum up a curve: first, lowest, highest and last value that is finite."""
    known = values[np.isfinite(values)]
    found = (known[0], known.min(), known.max(), known[-1]) if len(known) else (np.nan,) * 4
    return {
        name: number(float(value))
        for name, value in zip(("first", "lowest", "highest", "last"), found, strict=True)
    }


def describe_values(values: Array) -> str:
    """Sum up a curve in words."""
    return ", ".join(f"{name} {cell.text}" for name, cell in value_cells(values).items())
