"""Charts that compare models: bars of teacher and student, and accuracy against cost. Vega-Lite specs as dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dskd_export.documents.base import Interval
from dskd_export.report import chart_parts as shared
from dskd_export.report.chart_parts import Spec, frame


def relative_chart(shares: Mapping[str, float]) -> Spec:
    """Draw the student as a share of the teacher, a bar for each quantity; the line at 100 % is the teacher.

    Args:
        shares: quantity -> student / teacher.
    """
    rows = [{"name": name, "value": round(100 * value, 2)} for name, value in shares.items()]
    end = 120 * max(1.0, *shares.values())
    teacher = {
        "data": {"values": [{"value": 100}]},
        "mark": {"type": "rule", "color": shared.TEACHER, "strokeDash": [6, 3], "strokeWidth": 1.4},
        "encoding": {"x": _bar_axis("student, as a share of the teacher (%)", end)},
    }
    return _bars(rows, "student, as a share of the teacher (%)", end, ".1f", {"value": shared.STUDENT}, [teacher])


def discarded_chart(parts: Sequence[tuple[str, int, bool]]) -> Spec:
    """Draw the parameters of all that took part in the training, and which of it ships.

    Args:
        parts: (name, parameters, ships) from top to bottom.
    """
    rows = [{"name": name, "value": count / 1e6, "ships": ships} for name, count, ships in parts]
    end = 1.2 * max(count for _, count, _ in parts) / 1e6
    colour = {"condition": {"test": "datum.ships", "value": shared.STUDENT}, "value": shared.MUTED}
    return _bars(rows, "parameters (millions)", end, ".3~g", colour, [])


def _bar_axis(title: str, end: float) -> Spec:
    return shared.quantitative("value", title, scale={"domain": [0, end], "nice": False}, axis={"tickCount": 5})


def _bars(
    rows: Sequence[Mapping[str, Any]], title: str, end: float, digits: str, colour: Spec, more: Sequence[Spec]
) -> Spec:
    """Horizontal bars; their figures stand in a column at the right end, clear of bars and lines."""
    y = {"field": "name", "type": "nominal", "sort": None, "title": None}
    x = _bar_axis(title, end)
    text = {"field": "value", "format": digits}
    layers = [
        {"mark": {"type": "bar", "height": {"band": 0.5}}, "encoding": {"y": y, "x": x, "color": colour}},
        {
            "mark": {"type": "text", "align": "right", "color": shared.INK},
            "encoding": {"y": y, "x": {"datum": end}, "text": text},
        },
    ]
    return {**frame(height=45 + 34 * len(rows)), "data": {"values": rows}, "layer": [*layers, *more]}


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


def pareto_chart(dots: Sequence[Dot], title: str, colours: Sequence[str]) -> Spec:
    """Draw top-1 in percent over a logarithmic cost, with both intervals.

    Args:
        dots: at least one, all costs above 0.
        title: of the cost, with its unit.
        colours: one for each group.
    """
    rows = [
        {
            "group": f"g{dot.group}",
            "model": dot.label,
            "x": shared.round_coordinate(dot.x.value),
            "x_low": shared.round_coordinate(max(dot.x.low, dot.x.value * 1e-3)),
            "x_high": shared.round_coordinate(dot.x.high),
            "top1": shared.round_coordinate(100 * dot.top1.value),
            "low": shared.round_coordinate(100 * dot.top1.low),
            "high": shared.round_coordinate(100 * dot.top1.high),
            "shape": "square" if dot.teacher else "circle",
            "fill": 1.0 if dot.passes else 0.12,
        }
        for dot in dots
    ]
    every = [value for dot in dots for value in (max(dot.x.low, dot.x.value * 1e-3), dot.x.high)]
    low, high = min(every) / 1.15, max(every) * 1.15

    def x(field: str) -> Spec:
        scale = {"type": "log", "nice": False, "domain": [low, high]}
        return shared.quantitative(
            field, title, scale=scale, axis={"format": "~g", "values": shared.log_ticks(low, high)}
        )

    def y(field: str) -> Spec:
        return shared.quantitative(field, "top-1 accuracy (%)", scale={"zero": False, "padding": 10})

    colour = shared.series_scale("group", [f"g{index}" for index in range(len(colours))], list(colours))
    line = {"type": "rule", "strokeWidth": 1.2, "opacity": 0.55}
    tooltip = [
        {"field": "model", "title": "model"},
        {"field": "x", "title": title.partition(" (")[0], "format": ".4~g"},
        {"field": "top1", "title": "top-1 (%)", "format": ".2f"},
        {"field": "low", "title": "at least (%)", "format": ".2f"},
        {"field": "high", "title": "at most (%)", "format": ".2f"},
    ]
    vertical = {"x": x("x"), "y": y("low"), "y2": {"field": "high"}, "color": colour}
    horizontal = {"x": x("x_low"), "x2": {"field": "x_high"}, "y": y("top1"), "color": colour}
    point = {
        "x": x("x"),
        "y": y("top1"),
        "color": colour,
        "fill": colour,
        "fillOpacity": {"field": "fill", "type": "quantitative", "scale": None, "legend": None},
        "shape": {"field": "shape", "type": "nominal", "scale": None, "legend": None},
        "tooltip": tooltip,
    }
    layers = [
        {"mark": line, "encoding": vertical},
        {"mark": line, "encoding": horizontal},
        {"mark": {"type": "point", "size": 90, "strokeWidth": 2, "opacity": 1}, "encoding": point},
    ]
    return {**frame(height=300), "data": {"values": rows}, "layer": layers}
