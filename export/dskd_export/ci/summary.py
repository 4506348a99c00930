"""A benchmark for those who did not run it: a JUnit file for CI, a Markdown table for its summary page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from dskd_export.benchmark.budget import failures_of, name_of, verdict_of_budget
from dskd_export.ci.junit import case, suite, tree_of
from dskd_export.documents.benchmark import BenchmarkDocument, BenchmarkRow, RowJudgement
from dskd_export.validation.gate import sentence


def junit_of_benchmark(document: BenchmarkDocument, baseline: Sequence[RowJudgement] = ()) -> str:
    """JUnit XML: one suite for each model that was judged by the budget or a baseline, one case for each check.

    A check that a model misses is a failure only where no model meets the budget: a budget asks for one. One that
    is NOT SHOWN is then a failure of that type. What was not measured is `skipped`: never a pass.
    """
    missed = bool(failures_of(document.judgements))
    provenance = document.provenance
    root = ElementTree.Element("testsuites", {"name": "dskd-compress benchmark"})
    for judgements, counts, kind in ((document.judgements, missed, "budget"), (baseline, True, "baseline")):
        for judgement in judgements:
            suite_ = suite(root, f"{kind}: {name_of(judgement)}", provenance.started_at)
            for check in judgement.checks:
                missed_it = check.verdict in ("FAIL", "NOT SHOWN")
                skipped = "" if check.verdict != "NOT JUDGED" else check.detail
                words = f"NOT SHOWN: {sentence(check)}" if check.verdict == "NOT SHOWN" else sentence(check)
                if missed_it and not counts:
                    skipped = f"{words}; another model meets the budget"
                text = words if counts and missed_it else ""
                case(suite_, f"benchmark.{kind}", check.name, failure=text, kind=check.verdict, skipped=skipped)
    return tree_of(root, provenance.seconds)


def markdown_summary(document: BenchmarkDocument, baseline: Sequence[RowJudgement] = ()) -> str:
    """A table of what was timed and one of what was judged, as GitHub's job summaries show it."""
    device = document.provenance.device
    lines = [f"## Benchmark on {device.gpu or device.cpu}", ""]
    lines += [
        "| model | batch | part | p50 ms | p99 ms | images/s | mJ/image | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(_row(row))} |" for row in document.rows]
    for title, judgements in (
        (f"Budget: {verdict_of_budget(document.judgements)}", document.judgements),
        ("Baseline", baseline),
    ):
        if judgements:
            lines += [
                "",
                f"### {title}",
                "",
                "| model | check | value | bound | limit | |",
                "|---|---|---|---|---|---|",
            ]
            lines += [f"| {' | '.join(cells)} |" for judgement in judgements for cells in _checks(judgement)]
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


def _checks(judgement: RowJudgement) -> Iterator[list[str]]:
    for check in judgement.checks:
        value, bound = ("" if number is None else f"{number:.4g}" for number in (check.value, check.bound))
        limit = f"{check.comparison} {check.limit:g}"
        yield [name_of(judgement), check.name, value or _plain(check.detail), bound, limit, check.verdict]


def _plain(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
