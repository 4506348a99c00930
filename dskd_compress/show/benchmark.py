"""Tables of a benchmark and its verdicts, and the exit codes of a missed budget. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from dskd_compress.console import Output
from dskd_compress.show.profile import print_profiles
from dskd_export.benchmark.budget import list_failures, name_of, tabulate_checks, verdict_of_budget
from dskd_export.benchmark.candidates import list_slower
from dskd_export.benchmark.unstable import list_unstable_reasons
from dskd_export.documents.benchmark import AbDocument, BenchmarkDocument, RowJudgement
from dskd_export.errors import GateFailed, NotShown
from dskd_export.validation.verdicts import describe_check


def print_benchmark(document: BenchmarkDocument, output: Output) -> None:
    """Print all tables of a benchmark, and why values are missing."""
    print_rows([("", document)], output)
    for slower in list_slower(document):
        output.plain(slower)
    print_scenarios(document, output)
    print_cross_checks(document, output)
    print_profiles([("", document)], output)
    for reason in dict.fromkeys(row.energy_reason for row in document.rows if row.energy_reason):
        output.print(Text(f"No energy: {reason}."))
    skipped = [row for row in document.rows if row.unavailable]
    for reason in dict.fromkeys(f"{row.precision} on {row.provider}: {row.unavailable}" for row in skipped):
        output.warn(f"not timed: {reason}")
    if document.images:
        output.plain(f"Images: {document.images}")


def print_scenarios(document: BenchmarkDocument, output: Output) -> None:
    """Print the value of each scenario, with its interval."""
    output.table(
        "Scenarios",
        ["scenario", "model", "runner", "images", "value", "95 %", "unit", ""],
        [
            [
                one.scenario,
                one.model,
                f"{one.runner} {one.provider} {one.precision}",
                str(one.samples_per_query),
                "-" if one.value is None else f"{one.value.value:.4g}",
                "-" if one.value is None else f"{one.value.low:.4g} to {one.value.high:.4g}",
                one.metric.replace("_", " ") + (f", p99 within {one.bound_ms:g} ms" if one.bound_ms else ""),
                "-" if one.value is None else "" if one.stable else "UNSTABLE",
            ]
            for one in document.scenarios
        ],
    )
    for one in document.scenarios:
        if one.reason:
            output.plain(f"{one.scenario} of {one.model}, {one.precision}: {one.reason}.")


def print_rows(documents: Sequence[tuple[str, BenchmarkDocument]], output: Output) -> None:
    """Print one row per measurement; the first column names the device where there are several."""
    several = any(name for name, _ in documents)
    output.table(
        "Latency",
        [
            *(["device"] if several else []),
            *("model", "runner", "batch", "part", "p50 ms", "p99 ms", "images/s", "mJ/image", ""),
        ],
        [
            [
                *([name] if several else []),
                row.model,
                f"{row.runner} {row.provider} {row.precision}",
                str(row.batch),
                row.part.replace("_", " "),
                f"{row.latency.p50_ms:.3f}",
                f"{row.latency.p99_ms:.3f}",
                f"{row.throughput_images_per_s:.0f}",
                f"{row.energy_per_image_mj.value:.3g}" if row.energy_per_image_mj else "-",
                "" if row.latency.stable else "UNSTABLE",
            ]
            for name, document in documents
            for row in document.rows
            if row.latency is not None
        ],
    )
    latencies = [row.latency for _, document in documents for row in document.rows if row.latency is not None]
    for reason in list_unstable_reasons(latencies):
        output.plain(f"UNSTABLE: {reason}.")


def print_cross_checks(document: BenchmarkDocument, output: Output) -> None:
    """Print the times of both clocks, side by side."""
    output.table(
        "Cross-check",
        ["engine", "batch", "p50 ms", "p99 ms", "tool", "p50 ms", "p99 ms", "ratio of p50"],
        [
            [
                check.precision,
                str(check.batch),
                f"{check.own_p50_ms:.3f}",
                f"{check.own_p99_ms:.3f}",
                check.tool,
                f"{check.p50_ms:.3f}" if check.p50_ms is not None else check.reason,
                f"{check.p99_ms:.3f}" if check.p99_ms is not None else "-",
                f"{check.ratio:.3f}" if check.ratio is not None else "-",
            ]
            for check in document.cross_checks
        ],
    )


def print_comparisons(document: AbDocument, output: Output) -> None:
    """Print the verdict on the second bundle against the first, model by model."""
    output.table(
        f"{document.second} against {document.first}",
        ["model", "batch", "B / A", "95 %", "verdict", ""],
        [
            [
                one.second,
                str(one.batch),
                f"{one.ratio.value:.3f}",
                f"{one.ratio.low:.3f} to {one.ratio.high:.3f}",
                one.verdict,
                "" if one.stable else "UNSTABLE",
            ]
            for one in document.comparisons
        ],
    )
    for reason in dict.fromkeys(one.reason for one in document.comparisons if not one.stable):
        output.plain(f"UNSTABLE: {reason}.")


def print_judgements(title: str, judgements: Sequence[RowJudgement], output: Output) -> None:
    """Print one line per check; nothing where nothing was judged."""
    if judgements:
        columns = ["model", "check", "value", "bound", "limit", "verdict"]
        output.table(title, columns, tabulate_checks(judgements))


def refuse_slow(judgements: Sequence[RowJudgement], older: Sequence[RowJudgement]) -> None:
    """Raise where no model is shown to meet the budget, or one is slower than the baseline.

    Raises:
        GateFailed: names every model that misses the budget, or is slower.
        NotShown: a model is within every limit, but an interval is not.
    """
    raise_worst([find_slow(judgements, older)])


def refuse_slow_anywhere(documents: Sequence[BenchmarkDocument]) -> None:
    """Raise the worst of what `refuse_slow` raises for each device."""
    raise_worst([find_slow(document.judgements, []) for document in documents])


def find_slow(judgements: Sequence[RowJudgement], older: Sequence[RowJudgement]) -> GateFailed | NotShown | None:
    """Find why a benchmark does not pass; None where it does."""
    missed = " | ".join(list_failures(judgements))
    slower = [
        f"{name_of(one)}: {'; '.join(describe_check(check) for check in one.checks if check.failed)}"
        for one in older
        if one.failed
    ]
    verdict = verdict_of_budget(judgements)
    if verdict == "FAIL":
        return GateFailed(
            f"No model meets the budget: {missed}",
            "Ship another precision or device, allow more in budget, or measure longer (benchmark.min_seconds).",
        )
    if slower:
        return GateFailed(
            f"Slower than the baseline: {' | '.join(slower)}",
            "Find the change, or give a new --baseline.",
        )
    if verdict == "NOT SHOWN":
        return NotShown(
            f"No model is shown to meet the budget: {missed}", "Measure longer: --set benchmark.min_seconds=30"
        )
    return None


def raise_worst(problems: Sequence[GateFailed | NotShown | None]) -> None:
    """Raise the first GateFailed, else the first NotShown; nothing where there is neither."""
    found = [problem for problem in problems if problem is not None]
    if found:
        raise min(found, key=lambda problem: problem.exit_code)
