"""Share colours, dashes, sizes and ticks between the charts.

Colours are CSS variables of the page (`var(--...)`), so that one drawing follows light, dark and print.
Series differ in dash as well as in colour. Legends are HTML, made from `Key`, since a drawn legend
does not wrap on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dskd_export.report.blocks import Key

Spec = dict[str, Any]

TEACHER = "var(--teacher)"
STUDENT = "var(--student)"
MUTED = "var(--muted)"
INK = "var(--ink)"

# Colour and dash of the n-th series of a chart; they repeat after eight.
_STYLES: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("var(--c1)", ()),
    ("var(--c2)", (6, 2)),
    ("var(--c3)", (2, 2)),
    ("var(--c4)", (8, 2, 2, 2)),
    ("var(--c5)", (1, 3)),
    ("var(--c6)", (12, 3)),
    ("var(--c7)", (4, 4)),
    ("var(--c8)", (10, 2, 2, 2, 2, 2)),
)


def keys_for(names: Sequence[str]) -> list[Key]:
    """A legend entry with its own colour and dash for each name."""
    return [Key(name, *_STYLES[index % len(_STYLES)]) for index, name in enumerate(names)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis: the fewer of each decade, the more decades there are."""
    decades = np.log10(high / low)
    steps = (1, 2, 3, 5, 7) if decades <= 1 else (1, 2, 5) if decades <= 2 else (1,)
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    every = max(1, round((last - first) / 6)) if decades > 2 else 1
    ticks = [float(f"{step}e{power}") for power in range(first, last + 1, every) for step in steps]
    return [tick for tick in ticks if low <= tick <= high] or [low, high]


def frame(height: int = 220) -> Spec:
    """Size of a chart: as wide as its box, `height` pixels high."""
    return {"width": "container", "height": height, "autosize": {"type": "fit", "contains": "padding"}}


def series_scale(field: str, domain: Sequence[str], values: Sequence[Any]) -> Spec:
    """Colour or dash by series; the legend is HTML."""
    return {"field": field, "type": "nominal", "scale": {"domain": domain, "range": values}, "legend": None}


def quantitative(field: str, title: str, **options: Any) -> Spec:
    """Make an axis of numbers; the title names the unit."""
    return {"field": field, "type": "quantitative", "title": title, **options}


def round_coordinate(value: float) -> float | None:
    """Round to six digits: enough for a pixel, and half the size in the file; None where it is not finite."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
