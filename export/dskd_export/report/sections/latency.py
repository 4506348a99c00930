"""How fast, at what energy: the table of all cells and their distributions. The two parts stay apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from dskd_export.documents.base import Interval
from dskd_export.documents.benchmark import BenchmarkDocument, BenchmarkRow, Latency
from dskd_export.report import chart_parts as looks
from dskd_export.report import charts
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import (
    Block,
    Cell,
    Figure,
    Gallery,
    Heading,
    Key,
    Note,
    Section,
    Table,
    missing,
    not_there,
    number,
)
from dskd_export.report.load import Run
from dskd_export.report.sections import energy, load
from dskd_export.report.series import distribution

Part = Literal["engine", "with_preprocessing"]

_PARTS: tuple[tuple[Part, str, str], ...] = (
    ("engine", "Engine only", "Arrays in, logits out."),
    ("with_preprocessing", "With preprocessing", "Decoded image in, logits out."),
)
_DASHES: tuple[tuple[int, ...], ...] = ((), (6, 3), (2, 2), (8, 2, 2, 2))


def latency(run: Run) -> Section:
    """One table and one chart a batch size, for each part of the work."""
    if run.benchmark is None:
        return Section("latency", "Latency", [not_there("benchmark.json", "benchmark", "Latency and throughput")])
    blocks: list[Block] = []
    for part, title, explained in _PARTS:
        rows = [row for row in run.benchmark.rows if row.part == part]
        blocks.append(Heading(f"latency-{part}", title))
        if not rows:
            blocks.append(Note(f"{explained} Not in the benchmark.", "missing"))
            continue
        blocks.append(Note(explained))
        blocks += [_unstable(row, row.latency) for row in rows if row.latency and not row.latency.stable]
        blocks += _figures(run, part, rows)
        blocks.append(_table(part, title, rows))
    blocks.append(Heading("latency-load", "Steps, memory, load"))
    blocks += load.load(run.benchmark, _name)
    blocks += energy.notes(run.benchmark.rows)
    blocks += energy.conditions(run.benchmark.rows, _name)
    blocks.append(_machine(run.benchmark))
    return Section("latency", "Latency", blocks)


def _unstable(row: BenchmarkRow, latency: Latency) -> Note:
    return Note(
        f"UNSTABLE: {_name(row)}, batch {row.batch}: {latency.reason or 'no reason was recorded'}.", "warning"
    )


def _table(part: Part, title: str, rows: Sequence[BenchmarkRow]) -> Table:
    columns = (
        "model and runner",
        "batch",
        "p50 (ms)",
        "p90 (ms)",
        "p95 (ms)",
        "p99 (ms)",
        "p99.9 (ms)",
        "mean (ms)",
        "CoV (%)",
        "images/s",
        "energy (mJ/image)",
        "calls",
        "load (ms)",
        "first call (ms)",
        "remark",
    )
    cells = [_cells(row) for row in rows]
    note = (
        "In brackets 95 % intervals; a percentile without one has too few calls beyond it to tell. "
        "–: not measured. CoV: standard deviation / mean. Calls: measured, after the warm-up."
    )
    return Table(f"latency-table-{part}", f"{title}: latency of one call", columns, cells, note=note)


def _cells(row: BenchmarkRow) -> list[Cell]:
    latency = row.latency
    head = [Cell(_name(row)), number(str(row.batch))]
    opening = [
        number(fmt.significant(value) if value is not None else "–")
        for value in (row.load_ms, row.first_inference_ms)
    ]
    if latency is None:
        reason = missing(f"not measured: {row.unavailable or 'no reason was recorded'}")
        return [*head, *[number("–")] * 10, *opening, reason]
    spread = (
        latency.p50_ms,
        latency.p90_ms,
        latency.p95_ms,
        latency.p99_ms,
        latency.p999_ms,
        latency.mean_ms,
    )
    return [
        *head,
        *(
            number(_with_interval(value, latency.intervals_ms.get(name)))
            for name, value in zip(("p50", "p90", "p95", "p99", "p999", "mean"), spread, strict=True)
        ),
        number(f"{100 * latency.coefficient_of_variation:.1f}"),
        number(fmt.significant(row.throughput_images_per_s))
        if row.throughput_images_per_s is not None
        else missing("not measured"),
        energy.cell(row),
        number(fmt.count(latency.iterations)),
        *opening,
        Cell("steady") if latency.stable else Cell("UNSTABLE", "stale"),
    ]


def _with_interval(value: float, interval: Interval | None) -> str:
    return fmt.significant(value) if interval is None else fmt.around(interval)


def _figures(run: Run, part: Part, rows: Sequence[BenchmarkRow]) -> list[Block]:
    figures = []
    for batch in sorted({row.batch for row in rows}):
        measured = [row for row in rows if row.batch == batch and row.latency is not None]
        if not measured:
            continue
        runners = list(dict.fromkeys(_runner(row) for row in measured))
        curves = [_curve(run, row, runners.index(_runner(row))) for row in measured]
        curves.sort(key=lambda curve: curve.marks["p50"][0])
        raw = all(row.samples_key in run.samples for row in measured)
        words = "; ".join(
            f"{c.key.label}: p50 {c.marks['p50'][0]:.3g} ms, p99 {c.marks['p99'][0]:.3g} ms" for c in curves
        )
        figures.append(
            Figure(
                f"latency-{part}-batch-{batch}",
                f"Batch {batch}",
                f"Cumulative distributions of the latency at batch {batch}. {words}.",
                charts.latency_chart(curves),
                legend=[curve.key for curve in curves],
                caption="Dots: p50, p90, p99, p99.9. "
                + (
                    "From all measured calls."
                    if raw
                    else "Lines between percentiles where the raw samples are not there."
                ),
            )
        )
    return [Gallery(figures)] if figures else []


def _curve(run: Run, row: BenchmarkRow, runner_index: int) -> charts.Curve:
    """The distribution from the raw samples, or through the recorded percentiles without them."""
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
    colour = looks.TEACHER if row.model == "teacher" else looks.STUDENT
    key = Key(_name(row), colour, _DASHES[runner_index % len(_DASHES)])
    return charts.Curve(key, milliseconds, fractions, marks)


def _machine(benchmark: BenchmarkDocument) -> Note:
    device = benchmark.provenance.device
    facts = [device.cpu, f"{device.cores} cores usable"]
    facts.append(f"governor {device.governor}" if device.governor else "frequency governor not told by the system")
    facts.append(device.simd or "vectors not told by the system")
    if device.pinned_cores is not None:
        facts.append(f"held to cores {', '.join(map(str, device.pinned_cores))}")
    if device.gpu:
        facts.append(f"{device.gpu}, driver {device.driver or 'not told'}")
    return Note(f"Measured on: {', '.join(facts)}.")


def _runner(row: BenchmarkRow) -> str:
    return fmt.runner_name(row.runner, row.provider, row.precision, row.threads)


def _name(row: BenchmarkRow) -> str:
    return f"{row.model}, {_runner(row)}"
