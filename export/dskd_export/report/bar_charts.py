"""Bar charts: what is left of the teacher, and what ships. Vega-Lite specs as plain dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dskd_export.report.chart_parts import INK, MUTED, STUDENT, TEACHER, Spec, frame

# The figures of a bar chart stand in a column at its right end, where no bar and no line runs into them.
_FIGURES: Spec = {"type": "text", "align": "right", "color": INK}


def relative_chart(shares: Mapping[str, float]) -> Spec:
    """The student as a share of the teacher, a bar for each quantity; the line at 100 % is the teacher.

    Args:
        shares: quantity -> student / teacher.
    """
    rows = [{"what": name, "share": round(100 * value, 2)} for name, value in shares.items()]
    end = 120 * max(1.0, *shares.values())
    y = {"field": "what", "type": "nominal", "sort": None, "title": None}
    x = {
        "field": "share",
        "type": "quantitative",
        "title": "student, as a share of the teacher (%)",
        "scale": {"domain": [0, end], "nice": False},
        "axis": {"tickCount": 5},
    }
    return {
        **frame(height=45 + 34 * len(rows)),
        "data": {"values": rows},
        "layer": [
            {
                "mark": {"type": "bar", "color": STUDENT, "height": {"band": 0.5}},
                "encoding": {"y": y, "x": x},
            },
            {
                "mark": _FIGURES,
                "encoding": {"y": y, "x": {"datum": end}, "text": {"field": "share", "format": ".1f"}},
            },
            {
                "data": {"values": [{"share": 100}]},
                "mark": {"type": "rule", "color": TEACHER, "strokeDash": [6, 3], "strokeWidth": 1.4},
                "encoding": {"x": x},
            },
        ],
    }


def discarded_chart(parts: Sequence[tuple[str, int, bool]]) -> Spec:
    """Parameters of all that took part in the training, and which of it ships.

    Args:
        parts: (name, parameters, ships) from top to bottom.
    """
    rows = [{"part": name, "millions": count / 1e6, "ships": ships} for name, count, ships in parts]
    end = 1.2 * max(count for _, count, _ in parts) / 1e6
    y = {"field": "part", "type": "nominal", "sort": None, "title": None}
    x = {
        "field": "millions",
        "type": "quantitative",
        "title": "parameters (millions)",
        "scale": {"domain": [0, end], "nice": False},
        "axis": {"tickCount": 5},
    }
    return {
        **frame(height=45 + 34 * len(rows)),
        "data": {"values": rows},
        "layer": [
            {
                "mark": {"type": "bar", "height": {"band": 0.5}},
                "encoding": {
                    "y": y,
                    "x": x,
                    "color": {"condition": {"test": "datum.ships", "value": STUDENT}, "value": MUTED},
                },
            },
            {
                "mark": _FIGURES,
                "encoding": {"y": y, "x": {"datum": end}, "text": {"field": "millions", "format": ".3~g"}},
            },
        ],
    }
