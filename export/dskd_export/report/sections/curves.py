"""Line charts over the steps of a training, with their legend and their figures in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dskd_export.report import chart_parts as parts
from dskd_export.report import charts
from dskd_export.report.blocks import Figure, Key
from dskd_export.report.series import Array
from dskd_export.report.tables import Cell, number


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
    keys = parts.keys_for(list(series)) if colour is None else [Key(title, colour)]
    spec = charts.step_chart(np.array(steps, dtype=float), series, axis, keys, log)
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
