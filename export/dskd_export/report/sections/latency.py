"""Latency and energy of every timed cell, as tables and distributions. The two parts stay apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from dskd_export.benchmark.unstable import list_unstable_reasons
from dskd_export.documents.benchmark import BenchmarkDocument, BenchmarkRow
from dskd_export.report import chart_parts as parts
from dskd_export.report import charts
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import Block, Figure, Gallery, Heading, Key, Note, Section, missing_file
from dskd_export.report.load import Run
from dskd_export.report.sections.energy import condition_table, energy_notes
from dskd_export.report.sections.load import load_tables
from dskd_export.report.series import distribution
from dskd_export.report.tables import Cell, Table, make_table, number

Part = Literal["engine", "with_preprocessing"]

_PARTS: tuple[tuple[Part, str, str], ...] = (
    ("engine", "Engine only", "Arrays in, logits out."),
    ("with_preprocessing", "With preprocessing", "Decoded image in, logits out."),
)
_DASHES: tuple[tuple[int, ...], ...] = ((), (6, 3), (2, 2), (8, 2, 2, 2))
_PERCENTILES = {"p50": "p50 (ms)", "p90": "p90 (ms)", "p95": "p95 (ms)", "p99": "p99 (ms)", "p999": "p99.9 (ms)"}


def section_from_run(run: Run) -> Section:
    """Make one table and one chart a batch size, for each part of the work."""
    if run.benchmark is None:
        missed = missing_file("benchmark.json", "benchmark", "Latency and throughput")
        return Section("latency", "Latency", [missed])
    blocks: list[Block] = list(_unstable(run.benchmark))
    for part, title, explained in _PARTS:
        rows = [row for row in run.benchmark.rows if row.part == part]
        blocks.append(Heading(f"latency-{part}", title))
        if not rows:
            blocks.append(Note(f"{explained} Not in the benchmark.", "missing"))
            continue
        blocks.append(Note(explained))
        blocks += _figures(run, part, rows)
        blocks.append(_table(part, title, rows))
    blocks.append(Heading("latency-load", "Steps, memory, load"))
    blocks += load_tables(run.benchmark, _name)
    blocks += energy_notes(run.benchmark.rows)
    blocks += condition_table(run.benchmark.rows, _name)
    blocks.append(_machine(run.benchmark))
    return Section("latency", "Latency", blocks)


def _unstable(benchmark: BenchmarkDocument) -> Iterator[Note]:
    """Say once that measurements are unstable, and why."""
    latencies = [row.latency for row in benchmark.rows if row.latency is not None]
    count = sum(not latency.stable for latency in latencies)
    if count:
        why = "; ".join(list_unstable_reasons(latencies))
        yield Note(f"UNSTABLE: {count} of {len(latencies)} measurements: {why}.", "warning")


def _table(part: Part, title: str, rows: Sequence[BenchmarkRow]) -> Table:
    note = (
        "95 % intervals in brackets; a percentile without one has too few calls beyond it. –: not measured. "
        "CoV: standard deviation / mean. Calls: measured, after the warm-up."
    )
    return make_table(
        f"latency-table-{part}", f"{title}: latency of one call", [_cells(row) for row in rows], note
    )


def _cells(row: BenchmarkRow) -> dict[str, Cell]:
    latency = row.latency
    times: dict[str, Cell] = {}
    for name, head in {**_PERCENTILES, "mean": "mean (ms)"}.items():
        value = None if latency is None else latency.intervals_ms.get(name) or getattr(latency, f"{name}_ms")
        times[head] = number(value)
    if latency is None:
        state = Cell("not measured", "missing", row.unavailable or "no reason was recorded")
    else:
        state = Cell("steady") if latency.stable else Cell("UNSTABLE", "stale", latency.reason)
    return {
        "model and runner": Cell(_name(row)),
        "batch": number(str(row.batch)),
        **times,
        "CoV (%)": number(None if latency is None else f"{100 * latency.coefficient_of_variation:.1f}"),
        "images/s": number(row.throughput_images_per_s),
        "energy (mJ/image)": number(row.energy_per_image_mj),
        "calls": number(None if latency is None else fmt.count(latency.iterations)),
        "load (ms)": number(row.load_ms),
        "first call (ms)": number(row.first_inference_ms),
        "state": state,
    }


def _figures(run: Run, part: Part, rows: Sequence[BenchmarkRow]) -> list[Block]:
    figures = []
    for batch in sorted({row.batch for row in rows}):
        measured = [row for row in rows if row.batch == batch and row.latency is not None]
        if not measured:
            continue
        runners = list(dict.fromkeys(fmt.runner_of(row) for row in measured))
        curves = [_curve(run, row, runners.index(fmt.runner_of(row))) for row in measured]
        curves.sort(key=lambda curve: curve.marks["p50"][0])
        raw = all(row.samples_key in run.samples for row in measured)
        words = "; ".join(
            f"{c.key.label}: p50 {c.marks['p50'][0]:.3g} ms, p99 {c.marks['p99'][0]:.3g} ms" for c in curves
        )
        source = "From all measured calls." if raw else "Lines between percentiles: raw samples are missing."
        figures.append(
            Figure(
                f"latency-{part}-batch-{batch}",
                f"Batch {batch}",
                f"Cumulative distributions of the latency at batch {batch}. {words}.",
                charts.latency_chart(curves),
                legend=[curve.key for curve in curves],
                caption=f"Dots: p50, p90, p99, p99.9. {source}",
            )
        )
    return [Gallery(figures)] if figures else []


def _curve(run: Run, row: BenchmarkRow, runner_index: int) -> charts.Curve:
    """Read the distribution off the raw samples, or through the recorded percentiles without them."""
    assert row.latency is not None  # callers select measured rows
    latency = row.latency
    marks = {
        "p50": (latency.p50_ms, 0.5),
        "p90": (latency.p90_ms, 0.9),
        "p99": (latency.p99_ms, 0.99),
        "p99.9": (latency.p999_ms, 0.999),
    }
    samples = run.samples.get(row.samples_key) if row.samples_key else None
    if samples is not None and len(samples):
        seconds, shares = distribution(samples)
        milliseconds = [1e3 * float(value) for value in seconds]
        fractions = [float(share) for share in shares]
    else:
        points = [(latency.min_ms, 0.0), *marks.values(), (latency.p95_ms, 0.95), (latency.max_ms, 1.0)]
        points.sort(key=lambda point: point[1])
        milliseconds, fractions = [p[0] for p in points], [p[1] for p in points]
    colour = parts.TEACHER if row.model == "teacher" else parts.STUDENT
    key = Key(_name(row), colour, _DASHES[runner_index % len(_DASHES)])
    return charts.Curve(key, milliseconds, fractions, marks)


def _machine(benchmark: BenchmarkDocument) -> Note:
    device = benchmark.provenance.device
    facts = [device.cpu, f"{device.cores} cores usable"]
    facts.append(f"governor {device.governor}" if device.governor else "frequency governor unknown")
    facts.append(device.simd or "vector extensions unknown")
    if device.pinned_cores is not None:
        facts.append(f"pinned to cores {', '.join(map(str, device.pinned_cores))}")
    if device.gpu:
        facts.append(f"{device.gpu}, driver {device.driver or 'unknown'}")
    return Note(f"Measured on: {', '.join(facts)}.")


def _name(row: BenchmarkRow) -> str:
    return f"{row.model}, {fmt.runner_of(row)}"
