from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dskd_export.documents.base import Interval
from dskd_export.report.blocks import Key
from dskd_export.report.chart_parts import keys_for, log_ticks
from dskd_export.report.charts import MOST_POINTS, Curve, accuracy_chart, latency_chart, step_chart
from dskd_export.report.model_charts import discarded_chart, relative_chart

STEPS = np.arange(1.0, 5001.0)
TERMS = {"loss": np.exp(-STEPS / 900) + 0.01, "ce": np.where(STEPS > 2000, np.nan, 0.5)}
KEYS = keys_for(list(TERMS))
CURVE = Curve(Key("student", "var(--student)"), [1.0, 2.0, 4.0], [0.0, 0.5, 1.0], {"p50": (2.0, 0.5)})

SPECS = {
    "linear": step_chart(STEPS, TERMS, "loss (no unit)", KEYS, log=False),
    "log": step_chart(STEPS, TERMS, "loss (no unit)", KEYS, log=True),
    "accuracy": accuracy_chart([1, 2], [0.4, 0.8], 2, "var(--student)", Interval(value=0.9, low=0.8, high=1.0)),
    "relative": relative_chart({"parameters": 0.25, "MACs": 1.5}),
    "discarded": discarded_chart([("student", 500_000, True), ("denoiser", 1_000_000, False)]),
    "latency": latency_chart([CURVE]),
}


def positions(value: Any) -> Iterator[dict[str, Any]]:
    """Every quantitative x or y encoding of a spec."""
    if isinstance(value, dict):
        for axis in ("x", "y"):
            if value.get("encoding", {}).get(axis, {}).get("type") == "quantitative":
                yield value["encoding"][axis]
        for part in value.values():
            yield from positions(part)
    elif isinstance(value, list):
        for part in value:
            yield from positions(part)


@pytest.mark.parametrize("name", SPECS)
def test_every_axis_names_its_unit(name: str) -> None:
    found = list(positions(SPECS[name]))
    assert found
    for encoding in found:
        assert encoding["title"] == "epoch" or "(" in encoding["title"], encoding


@pytest.mark.parametrize("name", SPECS)
def test_specs_are_strict_json(name: str) -> None:
    json.dumps(SPECS[name], allow_nan=False)


def test_curves_are_thinned_and_gaps_are_null() -> None:
    rows = SPECS["linear"]["data"]["values"]
    assert len(rows) == MOST_POINTS <= 600
    assert (rows[0]["x"], rows[-1]["x"]) == (1, 5000)
    assert rows[-1]["v1"] is None
    assert rows[0]["v0"] == pytest.approx(TERMS["loss"][:50].mean(), rel=0.02)


def test_series_differ_in_more_than_colour() -> None:
    keys = keys_for([str(i) for i in range(8)])
    assert len({key.colour for key in keys}) == 8
    assert len({tuple(key.dash) for key in keys}) == 8


@pytest.mark.parametrize(("low", "high"), [(0.82, 0.9), (0.8, 7.0), (0.06, 10.0), (1e-6, 30.0), (3.0, 3.0)])
def test_log_ticks_lie_inside_and_are_few(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert 1 <= len(ticks) <= 10
    assert all(low <= tick <= high for tick in ticks)


def test_bars_end_before_their_figures() -> None:
    for name in ("relative", "discarded"):
        domains = [position["scale"]["domain"][1] for position in positions(SPECS[name])]
        assert min(domains) >= 1.2 * max(row["value"] for row in SPECS[name]["data"]["values"]) - 1e-9
