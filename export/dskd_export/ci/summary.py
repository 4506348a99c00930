"""A benchmark for CI: a JUnit file, and a Markdown table for the summary of a job."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from dskd_export.benchmark.budget import list_failures, name_of, tabulate_checks, verdict_of_budget
from dskd_export.ci.junit import add_check, add_suite, format_suites
from dskd_export.documents.benchmark import BenchmarkDocument, BenchmarkRow, RowJudgement
from dskd_export.files.atomic import append_whole, write_atomic


def write_ci_files(
    document: BenchmarkDocument, baseline: Sequence[RowJudgement], junit: Path | None, summary: Path | None
) -> None:
    """Write the JUnit file, and append the summary to its file and to that of a GitHub job.

    Raises:
        EnvironmentProblem: a file cannot be written.
    """
    if junit is not None:
        write_atomic(junit, junit_of_benchmark(document, baseline))
    job_summary = os.environ.get("GITHUB_STEP_SUMMARY")
    for path in dict.fromkeys([summary, Path(job_summary) if job_summary else None]):
        if path is not None:
            append_whole(path, markdown_summary(document, baseline))


def junit_of_benchmark(document: BenchmarkDocument, baseline: Sequence[RowJudgement] = ()) -> str:
    """Format JUnit XML: one suite per model judged by the budget or a baseline, one case per check.

    A missed check is a failure only where no model meets the budget, which takes one. NOT SHOWN is then a failure
    of that type. A value that was not measured is `skipped`: never a pass.
    """
    missed = bool(list_failures(document.judgements))
    provenance = document.provenance
    root = ElementTree.Element("testsuites", {"name": "dskd-compress benchmark"})
    for judgements, counts, kind in ((document.judgements, missed, "budget"), (baseline, True, "baseline")):
        for judgement in judgements:
            suite_ = add_suite(root, f"{kind}: {name_of(judgement)}", provenance.started_at)
            for check in judgement.checks:
                add_check(suite_, f"benchmark.{kind}", check, counts, "; another model meets the budget")
    return format_suites(root, provenance.seconds)


def markdown_summary(document: BenchmarkDocument, baseline: Sequence[RowJudgement] = ()) -> str:
    """Format tables of the rows and of the checks, for a job summary of GitHub."""
    device = document.provenance.device
    lines = [f"## Benchmark on {device.gpu or device.cpu}", ""]
    lines += _head("model", "batch", "part", "p50 ms", "p99 ms", "images/s", "mJ/image", "")
    lines += [f"| {' | '.join(_row(row))} |" for row in document.rows]
    for title, judgements in (
        (f"Budget: {verdict_of_budget(document.judgements)}", document.judgements),
        ("Baseline", baseline),
    ):
        if judgements:
            lines += ["", f"### {title}", "", *_head("model", "check", "value", "bound", "limit", "")]
            lines += [f"| {' | '.join(map(_plain, cells))} |" for cells in tabulate_checks(judgements)]
    return "\n".join(lines) + "\n"


def _head(*columns: str) -> list[str]:
    return [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]


def _row(row: BenchmarkRow) -> list[str]:
    name = f"{row.model} {row.runner}:{row.provider}:{row.precision}"
    head = [name, str(row.batch), row.part.replace("_", " ")]
    if row.latency is None:
        return [*head, "-", "-", "-", "-", _plain(row.unavailable)]
    energy = "-" if row.energy_per_image_mj is None else f"{row.energy_per_image_mj.value:.3g}"
    note = "" if row.latency.stable else f"UNSTABLE: {_plain(row.latency.reason)}"
    rate = "-" if row.throughput_images_per_s is None else f"{row.throughput_images_per_s:.0f}"
    return [*head, _time(row, "p50"), _time(row, "p99"), rate, energy, note]


def _time(row: BenchmarkRow, name: str) -> str:
    assert row.latency is not None
    value, interval = getattr(row.latency, f"{name}_ms"), row.latency.intervals_ms.get(name)
    return f"{value:.3f}" if interval is None else f"{value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _plain(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
