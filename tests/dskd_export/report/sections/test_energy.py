"""Energy in the latency tables: with its interval, or with the reason why it is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dskd_export.documents.base import Interval, read_document
from dskd_export.documents.benchmark import BenchmarkDocument, BenchmarkRow, Course, EnergyFacts, TelemetryFacts
from dskd_export.report import build_report


def facts(**changes: Any) -> EnergyFacts:
    values = {
        "source": "sysfs",
        "scope": "the module",
        "rails": ["VDD_GPU_SOC", "VDD_CPU_CV"],
        "per_image_mj": Interval(value=12.34, low=12.01, high=12.67),
        "above_idle_per_image_mj": Interval(value=4.567, low=4.1, high=5.0),
        "idle_w": 6.543,
        "mean_w": 14.321,
        "method": "samples",
        "samples": 60,
        "gaps": 0,
        "gap_share": 0.0,
    }
    return EnergyFacts(**{**values, **changes})


def telemetry(**changes: Any) -> TelemetryFacts:
    values = {
        "source": "sysfs",
        "clocks_mhz": {"gpu": Course(start=1300.5, end=1200.4, low=1200, high=1301)},
        "temperatures_c": {"tj": Course(start=52.31, end=61.99, low=52, high=62)},
        "throttled": [],
        "unstable": [],
        "power_mode": "MAXN (mode 0)",
        "other_processes": [],
        "other_cpu_cores": 0.73,
        "samples": 60,
        "rate_hz": 19.87,
        "sampling_cpu_share": 0.002,
    }
    return TelemetryFacts(**{**values, **changes})


@pytest.fixture
def markdown(make_run: Callable[..., Path]) -> Callable[..., str]:
    """The report of a run whose benchmark rows are changed."""

    def make(change: Callable[[int, BenchmarkRow], dict[str, Any]]) -> str:
        folder = make_run()
        path = folder / "benchmark.json"
        document = read_document(path, BenchmarkDocument)
        timed = [row for row in document.rows if row.latency is not None]
        rows = [row.model_copy(update=change(index, row)) for index, row in enumerate(timed)]
        path.write_text(document.model_copy(update={"rows": rows}).model_dump_json())
        return build_report(folder).markdown

    return make


def measured(energy: EnergyFacts) -> dict[str, Any]:
    return {
        "energy": energy,
        "energy_per_image_mj": energy.per_image_mj,
        "energy_reason": energy.reason,
        "telemetry": telemetry(),
    }


def cells(markdown: str, table: str, column: str) -> list[str]:
    """A column of the first table below a caption."""
    lines = markdown[markdown.index(table) :].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    first = next(index for index, line in enumerate(lines) if line.startswith("|"))
    last = next(index for index in range(first, len(lines)) if not lines[index].startswith("|"))
    place = rows[first].index(column)
    return [row[place] for row in rows[first + 2 : last]]


def test_an_energy_with_its_interval(markdown: Callable[..., str]) -> None:
    text = markdown(lambda index, row: measured(facts()))
    for caption in ("Engine only: latency of one call", "With preprocessing: latency of one call"):
        found = cells(text, caption, "energy (mJ/image)")
        assert found
        assert set(found) == {"12.3 (12.0–12.7)"}
    assert "Energy: all of the module (VDD\\_GPU\\_SOC + VDD\\_CPU\\_CV), rest included, from samples" in text
    assert "Energy not measured" not in text


def test_an_energy_that_is_missing_says_why_once(markdown: Callable[..., str]) -> None:
    missing = facts(per_image_mj=None, above_idle_per_image_mj=None, mean_w=None, reason="no rail here")
    text = markdown(lambda index, row: measured(missing))
    assert set(cells(text, "Engine only: latency of one call", "energy (mJ/image)")) == {"–"}
    assert text.count("Energy not measured: no rail here.") == 1
    assert set(cells(text, "Power, clocks and temperatures", "power (W)")) == {"–"}


def test_some_rows_without_energy(markdown: Callable[..., str]) -> None:
    missing = facts(per_image_mj=None, reason="the sensor is gone")
    text = markdown(lambda index, row: measured(missing if index < 2 else facts()))
    assert "Energy not measured in 2 of " in text
    assert "rows: the sensor is gone." in text


def test_a_benchmark_of_before(markdown: Callable[..., str]) -> None:
    """Rows without any of it: nobody looked."""
    text = markdown(lambda index, row: {})
    assert "Energy not measured: not requested." in text
    assert "Power, clocks and temperatures" not in text


def test_the_conditions(markdown: Callable[..., str]) -> None:
    hot = telemetry(throttled=["gpu-throttle-alert"], other_processes=["process 7 (python)"])
    gaps = facts(gaps=2, gap_share=0.083)

    def change(index: int, row: BenchmarkRow) -> dict[str, Any]:
        return {**measured(gaps), "telemetry": hot} if index == 0 else measured(facts())

    text = markdown(change)
    table = "Power, clocks and temperatures while timing"
    expected = {
        "power (W)": "14.3",
        "at rest (W)": "6.54",
        "above rest (mJ/image)": "4.57 (4.10–5.00)",
        "clocks (MHz)": "gpu 1300 → 1200",
        "temperatures (°C)": "tj 52.3 → 62.0",
        "power mode": "MAXN (mode 0)",
        "samples/s": "19.9",
    }
    for column, value in expected.items():
        assert set(cells(text, table, column)) == {value}
    assert cells(text, table, "throttled")[0] == "**gpu-throttle-alert**"
    assert set(cells(text, table, "throttled")[1:]) == {"no"}
    assert cells(text, table, "others")[0] == "0.7 cores; process 7 (python)"
    assert cells(text, table, "gaps")[:2] == ["2 (8.3 %)", "0"]
    assert "rows have gaps in their samples, up to 8.3 % of the time." in text


def test_notes_of_the_energy_are_warnings(markdown: Callable[..., str]) -> None:
    text = markdown(
        lambda index, row: measured(facts(note="the counter says 9 J", idle_reason="none", idle_w=None))
    )
    assert text.count("Energy: the counter says 9 J.") == 1
    assert text.count("Energy: without the power at rest: none.") == 1
