"""Beyond the latency of a call: its steps, its memory, MLPerf's scenarios, and what TensorRT's own tool says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dskd_export.documents.benchmark import BenchmarkDocument, BenchmarkRow, CrossCheck, PartTime, ScenarioResult
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import Block, Cell, Note, Table, missing, number

_STEPS = {
    "decode": "decode",
    "preprocess": "preprocess",
    "host_to_device": "copy in",
    "enqueue": "start",
    "device": "compute",
    "device_to_host": "copy out",
    "postprocess": "postprocess",
}


def load(benchmark: BenchmarkDocument, name: Callable[[BenchmarkRow], str]) -> list[Block]:
    """Tables of what the benchmark has; what it has not is told in a line."""
    blocks: list[Block] = []
    stepped = [row for row in benchmark.rows if row.breakdown]
    if stepped:
        blocks.append(_steps(stepped, name))
        reasons = dict.fromkeys(
            f"{_STEPS[part.name]} of {name(row)}: {part.reason}"
            for row in stepped
            for part in row.breakdown
            if part.reason
        )
        blocks.append(Note(f"Steps that cannot be told apart: {'; '.join(reasons)}.", "missing"))
    else:
        blocks.append(Note("The steps from decoding to the class were not timed.", "missing"))
    held = [row for row in benchmark.rows if row.memory is not None and row.part == "engine"]
    if held:
        blocks.append(_memory(held, name))
    if benchmark.scenarios:
        blocks.append(_scenarios(benchmark.scenarios))
    else:
        blocks.append(
            Note("No MLPerf scenario. Make it: dskd-compress benchmark --set benchmark.scenarios=[all]", "missing")
        )
    if benchmark.cross_checks:
        blocks.append(_cross_checks(benchmark.cross_checks))
    return blocks


def _steps(rows: Sequence[BenchmarkRow], name: Callable[[BenchmarkRow], str]) -> Table:
    columns = ("model and runner", "batch", *(f"{title} (ms)" for title in _STEPS.values()))
    cells = []
    for row in rows:
        parts: dict[str, PartTime] = {part.name: part for part in row.breakdown}
        steps = [_step(found) for found in (parts.get(step) for step in _STEPS)]
        cells.append([Cell(name(row)), number(str(row.batch)), *steps])
    note = (
        "Each step timed by itself, p50 with its interval: they overlap and share caches, so their sum is not the "
        "latency."
    )
    return Table("steps-table", "Steps from the file to the class, for one batch", columns, cells, note=note)


def _step(part: PartTime | None) -> Cell:
    return number("–") if part is None or part.p50_ms is None else number(fmt.around(part.p50_ms))


def _memory(rows: Sequence[BenchmarkRow], name: Callable[[BenchmarkRow], str]) -> Table:
    columns = (
        "model and runner",
        "batch",
        "process grew by (MB)",
        "process at most (MB)",
        "GPU (MB)",
        "file (MB)",
    )
    cells = []
    for row in rows:
        assert row.memory is not None  # the caller selects them
        memory = row.memory
        cells.append(
            [
                Cell(name(row)),
                number(str(row.batch)),
                _known(memory.resident_mb, memory.resident_reason),
                _known(memory.process_peak_mb, "this system does not tell"),
                _known(memory.device_mb, memory.device_reason),
                _known(row.size_mb, "it has no file"),
            ]
        )
    note = "1 MB = 10^6 bytes. Grew by: from before the model was opened to the end of its measurement."
    return Table("memory-table", "Memory", columns, cells, note=note, folded=len(cells) > 8)


def _scenarios(results: Sequence[ScenarioResult]) -> Table:
    columns = ("scenario", "model", "runner", "images a query", "value", "unit", "queries", "remark")
    cells = [
        [
            Cell(one.scenario),
            Cell(one.model),
            Cell(fmt.runner_of(one)),
            number(str(one.samples_per_query)),
            missing(one.reason or "not measured") if one.value is None else number(fmt.around(one.value)),
            Cell(_unit(one)),
            number(fmt.count(one.queries)),
            Cell("steady" if one.stable else "UNSTABLE", "text" if one.stable else "stale"),
        ]
        for one in results
    ]
    unstable = [f"{one.scenario}, {one.precision}: {one.reason}" for one in results if one.value and one.reason]
    note = "Terms of MLPerf LoadGen; shorter than its rules ask for." + (
        f" Unstable: {'; '.join(unstable)}." if unstable else ""
    )
    return Table("scenarios-table", "MLPerf scenarios", columns, cells, note=note)


def _unit(one: ScenarioResult) -> str:
    words = {
        "latency_p90_ms": "ms, p90",
        "latency_p99_ms": "ms, p99",
        "rate_per_s": "queries/s",
        "throughput_images_per_s": "images/s",
    }[one.metric]
    return words if one.bound_ms is None else f"{words} with p99 within {one.bound_ms:g} ms"


def _cross_checks(checks: Sequence[CrossCheck]) -> Table:
    columns = (
        "engine",
        "batch",
        "p50 here (ms)",
        "p99 here (ms)",
        "tool",
        "p50 there (ms)",
        "p99 there (ms)",
        "ratio",
    )
    cells = [
        [
            Cell(check.precision),
            number(str(check.batch)),
            number(fmt.significant(check.own_p50_ms)),
            number(fmt.significant(check.own_p99_ms)),
            Cell(check.tool),
            _known(check.p50_ms, check.reason),
            _known(check.p99_ms, check.reason),
            _known(check.ratio, check.reason),
        ]
        for check in checks
    ]
    note = "The tool counts copies and kernels by the GPU's events, we the whole call by the wall clock."
    return Table("cross-check-table", "The same engines by TensorRT's own tool", columns, cells, note=note)


def _known(value: float | None, reason: str) -> Cell:
    return missing(reason or "not known") if value is None else number(fmt.significant(value))
