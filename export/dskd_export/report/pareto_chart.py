"""Accuracy against what it costs: a dot for each model, with both intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dskd_export.documents.base import Interval
from dskd_export.report.chart_parts import Spec, frame, keys_for, log_ticks, rounded, series_scale

STYLES = tuple((key.colour, key.dash) for key in keys_for([str(index) for index in range(8)]))


@dataclass(frozen=True)
class Dot:
    """A model.

    Attributes:
        group: number of its colour.
        label: for the tooltip.
        x: what it costs.
        top1: a fraction in [0, 1].
        passes: drawn filled.
        teacher: drawn as a square.
    """

    group: int
    label: str
    x: Interval
    top1: Interval
    passes: bool
    teacher: bool


def pareto_chart(dots: Sequence[Dot], axis: str, colours: Sequence[str]) -> Spec:
    """Top-1 in percent over a logarithmic cost.

    Args:
        dots: at least one, all costs above 0.
        axis: title of the cost, with its unit.
        colours: one for each group.
    """
    rows = [
        {
            "group": f"g{dot.group}",
            "model": dot.label,
            "x": rounded(dot.x.value),
            "x_low": rounded(max(dot.x.low, dot.x.value * 1e-3)),
            "x_high": rounded(dot.x.high),
            "top1": rounded(100 * dot.top1.value),
            "low": rounded(100 * dot.top1.low),
            "high": rounded(100 * dot.top1.high),
            "shape": "square" if dot.teacher else "circle",
            "fill": 1.0 if dot.passes else 0.12,
        }
        for dot in dots
    ]
    every = [value for dot in dots for value in (max(dot.x.low, dot.x.value * 1e-3), dot.x.high)]
    low, high = min(every), max(every)
    x: Spec = {
        "type": "quantitative",
        "title": axis,
        "scale": {"type": "log", "nice": False, "domain": [low / 1.15, high * 1.15]},
        "axis": {"format": "~g", "values": log_ticks(low / 1.15, high * 1.15)},
    }
    y: Spec = {"type": "quantitative", "title": "top-1 accuracy (%)", "scale": {"zero": False, "padding": 10}}
    names = [f"g{index}" for index in range(len(colours))]
    colour = series_scale("group", names, list(colours))
    line = {"type": "rule", "strokeWidth": 1.2, "opacity": 0.55}
    tooltip = [
        {"field": "model", "title": "model"},
        {"field": "x", "title": axis.partition(" (")[0], "format": ".4~g"},
        {"field": "top1", "title": "top-1 (%)", "format": ".2f"},
        {"field": "low", "title": "at least (%)", "format": ".2f"},
        {"field": "high", "title": "at most (%)", "format": ".2f"},
    ]
    return {
        **frame(height=300),
        "data": {"values": rows},
        "layer": [
            {
                "mark": line,
                "encoding": {
                    "x": {"field": "x", **x},
                    "y": {"field": "low", **y},
                    "y2": {"field": "high"},
                    "color": colour,
                },
            },
            {
                "mark": line,
                "encoding": {
                    "x": {"field": "x_low", **x},
                    "x2": {"field": "x_high"},
                    "y": {"field": "top1", **y},
                    "color": colour,
                },
            },
            {
                "mark": {"type": "point", "size": 90, "strokeWidth": 2, "opacity": 1},
                "encoding": {
                    "x": {"field": "x", **x},
                    "y": {"field": "top1", **y},
                    "color": colour,
                    "fill": series_scale("group", names, list(colours)),
                    "fillOpacity": {"field": "fill", "type": "quantitative", "scale": None, "legend": None},
                    "shape": {"field": "shape", "type": "nominal", "scale": None, "legend": None},
                    "tooltip": tooltip,
                },
            },
        ],
    }
