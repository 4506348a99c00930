"""Beyond the latency of a call: steps, memory, MLPerf scenarios, and the same engines timed by TensorRT's tool."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dskd_export.documents.benchmark import BenchmarkDocument, BenchmarkRow, CrossCheck, ScenarioResult
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import Block, Note
from dskd_export.report.tables import Cell, Table, make_table, number

_STEPS = {
    "decode": "decode",
    "preprocess": "preprocess",
    "host_to_device": "copy in",
    "enqueue": "start",
    "device": "compute",
    "device_to_host": "copy out",
    "postprocess": "postprocess",
}
_UNITS = {
    "latency_p90_ms": "ms, p90",
    "latency_p99_ms": "ms, p99",
    "rate_per_s": "queries/s",
    "throughput_images_per_s": "images/s",
}


def load_tables(benchmark: BenchmarkDocument, name: Callable[[BenchmarkRow], str]) -> list[Block]:
    """Make a table of each part that the benchmark has; name the missing ones in a line."""
    blocks: list[Block] = []
    stepped = [row for row in benchmark.rows if row.breakdown]
    if stepped:
        blocks.append(_step_table(stepped, name))
    else:
        blocks.append(Note("The steps from decoding to the class were not timed.", "missing"))
    held = [row for row in benchmark.rows if row.memory is not None and row.part == "engine"]
    if held:
        blocks.append(_memory_table(held, name))
    if benchmark.scenarios:
        blocks.append(_scenario_table(benchmark.scenarios))
    else:
        blocks.append(
            Note("No MLPerf scenario. Run: dskd-compress benchmark --set benchmark.scenarios=[all]", "missing")
        )
    if benchmark.cross_checks:
        blocks.append(_cross_check_table(benchmark.cross_checks))
    return blocks


def _step_table(rows: Sequence[BenchmarkRow], name: Callable[[BenchmarkRow], str]) -> Table:
    cells = []
    for row in rows:
        parts = {part.name: part for part in row.breakdown}
        steps = {
            f"{title} (ms)": number(parts[step].p50_ms, parts[step].reason) if step in parts else number(None)
            for step, title in _STEPS.items()
        }
        cells.append({"model and runner": Cell(name(row)), "batch": number(str(row.batch)), **steps})
    note = "p50 of each step, timed separately. Steps overlap and share caches, so their sum is not the latency."
    return make_table("steps-table", "Steps from the file to the class, one batch", cells, note)


def _memory_table(rows: Sequence[BenchmarkRow], name: Callable[[BenchmarkRow], str]) -> Table:
    cells = [
        {
            "model and runner": Cell(name(row)),
            "batch": number(str(row.batch)),
            "process growth (MB)": number(row.memory.resident_mb, row.memory.resident_reason or "not known"),
            "process peak (MB)": number(row.memory.process_peak_mb, "not reported"),
            "GPU (MB)": number(row.memory.device_mb, row.memory.device_reason or "not known"),
            "file (MB)": number(row.size_mb, "no file"),
        }
        for row in rows
        if row.memory is not None
    ]
    note = "1 MB = 10^6 bytes. Growth: from before the model was opened to the end of its measurement."
    return make_table("memory-table", "Memory", cells, note, folded=len(cells) > 8)


def _scenario_table(results: Sequence[ScenarioResult]) -> Table:
    rows = [
        {
            "scenario": Cell(one.scenario),
            "model": Cell(one.model),
            "runner": Cell(fmt.runner_of(one)),
            "images/query": number(str(one.samples_per_query)),
            "value": number(one.value, one.reason or "not measured"),
            "unit": Cell(
                _UNITS[one.metric] + ("" if one.bound_ms is None else f" with p99 within {one.bound_ms:g} ms")
            ),
            "queries": number(fmt.count(one.queries)),
            "state": Cell("steady") if one.stable else Cell("UNSTABLE", "stale", one.reason if one.value else ""),
        }
        for one in results
    ]
    note = "Terms of MLPerf LoadGen; runs are shorter than its rules require."
    return make_table("scenarios-table", "MLPerf scenarios", rows, note)


def _cross_check_table(checks: Sequence[CrossCheck]) -> Table:
    rows = []
    for check in checks:
        reason = check.reason or "not known"
        rows.append(
            {
                "engine": Cell(check.precision),
                "batch": number(str(check.batch)),
                "p50 here (ms)": number(check.own_p50_ms),
                "p99 here (ms)": number(check.own_p99_ms),
                "tool": Cell(check.tool),
                "p50 there (ms)": number(check.p50_ms, reason),
                "p99 there (ms)": number(check.p99_ms, reason),
                "ratio": number(check.ratio, reason),
            }
        )
    note = (
        "The tool measures copies and kernels by GPU events; dskd-compress measures the whole call by wall clock."
    )
    return make_table("cross-check-table", "The same engines timed by TensorRT's own tool", rows, note)
