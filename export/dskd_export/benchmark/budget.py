"""Judge a benchmark by a budget and by a baseline: one check per limit, by the unfavourable end of its interval.

A budget is met where at least one model meets all limits: that is the one to ship. A baseline is met where every
model that it holds is as fast as before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from dskd_export.documents.base import DeviceFacts, Interval, read_document
from dskd_export.documents.benchmark import BenchmarkDocument, BenchmarkRow, RowJudgement
from dskd_export.documents.runner_name import RunnerName
from dskd_export.documents.validation import Check, Verdict
from dskd_export.errors import UsageError
from dskd_export.settings import SpeedBudget
from dskd_export.telemetry.host import host_facts
from dskd_export.validation.verdicts import describe_check, worst_of

BASELINE_TOLERANCE = 0.02
"""Larger than the difference of two runs on a quiet machine: benchmarks/results/repeatability.json."""


def judge_rows(budget: SpeedBudget, rows: Iterable[BenchmarkRow], *, batch: int, part: str) -> list[RowJudgement]:
    """Judge the student's rows of one batch size and part by a budget; empty where no limit is set.

    A value that was not measured is NOT JUDGED, with its reason: never a pass.
    """
    if not budget.limits:
        return []
    judged = [row for row in rows if row.model == "student" and row.batch == batch and row.part == part]
    return [_judgement(row, list(_checks(budget, row))) for row in judged]


def _checks(budget: SpeedBudget, row: BenchmarkRow) -> Iterator[Check]:
    latency, memory = row.latency, row.memory
    why = row.unavailable or "it was not measured"
    if budget.latency_p99_ms is not None:
        found = None if latency is None else _interval(latency.intervals_ms.get("p99"), latency.p99_ms)
        yield _check("p99 latency (ms)", found, "<=", budget.latency_p99_ms, why)
    if budget.throughput_images_per_s is not None:
        yield _check("throughput (images/s)", _throughput(row), ">=", budget.throughput_images_per_s, why)
    if budget.energy_per_image_mj is not None:
        reason = row.energy_reason or why
        yield _check("energy (mJ/image)", row.energy_per_image_mj, "<=", budget.energy_per_image_mj, reason)
    if budget.memory_mb is not None:
        held = None if memory is None else memory.device_mb if memory.device_mb is not None else memory.resident_mb
        yield _check("memory (MB)", _interval(None, held), "<=", budget.memory_mb, why)
    if budget.size_mb is not None:
        yield _check("size (MB)", _interval(None, row.size_mb), "<=", budget.size_mb, "it has no file")


def _throughput(row: BenchmarkRow) -> Interval | None:
    """Images a second with their interval: the images of a call over its mean time."""
    if row.latency is None or row.throughput_images_per_s is None:
        return None
    mean = row.latency.intervals_ms.get("mean")
    value = row.throughput_images_per_s
    if mean is None or mean.low <= 0:
        return Interval(value=value, low=value, high=value)
    return Interval(value=value, low=value * mean.value / mean.high, high=value * mean.value / mean.low)


def _interval(interval: Interval | None, value: float | None) -> Interval | None:
    """An interval, else the value alone."""
    if interval is not None or value is None:
        return interval
    return Interval(value=value, low=value, high=value)


def _check(name: str, found: Interval | None, comparison: Literal["<=", ">="], limit: float, why: str) -> Check:
    if found is None:
        return Check(name=name, value=None, limit=limit, comparison=comparison, verdict="NOT JUDGED", detail=why)
    upper = comparison == "<="
    bound = found.high if upper else found.low
    holds = [value <= limit if upper else value >= limit for value in (bound, found.value)]
    verdict: Literal["PASS", "NOT SHOWN", "FAIL"] = "PASS" if holds[0] else "NOT SHOWN" if holds[1] else "FAIL"
    detail = "the value is within the limit, its interval is not: measure longer" if verdict == "NOT SHOWN" else ""
    return Check(
        name=name,
        value=found.value,
        bound=bound if found.low != found.high else None,
        limit=limit,
        comparison=comparison,
        verdict=verdict,
        detail=detail,
    )


def _judgement(row: BenchmarkRow, checks: list[Check]) -> RowJudgement:
    shared = RowJudgement.model_fields.keys() - {"checks"}
    return RowJudgement(**{name: getattr(row, name) for name in shared}, checks=checks)


def verdict_of_model(judgement: RowJudgement) -> Verdict:
    """The verdict on a timed model; a limit whose value could not be measured is not shown to be met."""
    return worst_of("NOT SHOWN" if check.verdict == "NOT JUDGED" else check.verdict for check in judgement.checks)


def reason_of_model(judgement: RowJudgement) -> str:
    """Limits that a timed model does not meet, in words; empty where it meets all."""
    return "; ".join(describe_check(check) for check in judgement.checks if check.verdict != "PASS")


def verdict_of_budget(judgements: Sequence[RowJudgement]) -> Verdict:
    """The verdict on a benchmark: that of its best model; NOT JUDGED without a budget."""
    found = {verdict_of_model(judgement) for judgement in judgements}
    order: tuple[Verdict, ...] = ("PASS", "NOT SHOWN", "FAIL")
    return next((verdict for verdict in order if verdict in found), "NOT JUDGED")


def name_of(judgement: RowJudgement) -> str:
    """For example `onnxruntime:cpu:int8, batch 1`."""
    name = RunnerName.of(judgement.runner, judgement.provider, judgement.precision)
    return f"{name}, batch {judgement.batch}"


def tabulate_checks(judgements: Iterable[RowJudgement]) -> Iterator[list[str]]:
    """Make table rows of checks: model, check, value (else the reason), bound, limit, verdict."""
    for judgement in judgements:
        for check in judgement.checks:
            value, bound = ("" if number is None else f"{number:.4g}" for number in (check.value, check.bound))
            limit = f"{check.comparison} {check.limit:g}"
            yield [name_of(judgement), check.name, value or check.detail, bound, limit, check.verdict]


def list_failures(judgements: Sequence[RowJudgement]) -> list[str]:
    """Why no model meets the budget, one line per model; empty where one does or nothing is judged."""
    if verdict_of_budget(judgements) in ("PASS", "NOT JUDGED"):
        return []
    return [f"{name_of(one)}: {reason_of_model(one)}" for one in judgements]


# --- a baseline

_SAME_ROW = ("model", "runner", "provider", "precision", "batch", "threads", "streams", "part")


def read_baseline(path: Path | None) -> BenchmarkDocument | None:
    """Read an older benchmark of this machine; None without a path.

    Raises:
        DataError: it is missing, or no benchmark.
        UsageError: it is of another machine.
    """
    if path is None:
        return None
    document = read_document(path, BenchmarkDocument)
    device = document.provenance.device
    refuse_other_machine(host_facts(device.device), device)
    return document


def compare_with_baseline(now: BenchmarkDocument, before: BenchmarkDocument) -> list[RowJudgement]:
    """Compare every row with the same row of an older benchmark: p50 and p99, by the ends of both intervals.

    A row fails where the low end of its time is over 2 % above the high end of the older one.

    Raises:
        UsageError: the benchmarks are of other machines or power modes, or have no row in common.
    """
    refuse_other_machine(now.provenance.device, before.provenance.device)
    _refuse_other_mode(now, before)
    known = {_key(row): row for row in before.rows if row.latency is not None}
    judged = []
    for row in now.rows:
        old = known.get(_key(row))
        if old is not None and row.latency is not None:
            judged.append(_judgement(row, list(_regressions(row, old))))
    if not judged:
        raise UsageError(
            "The baseline has no measurement in common with this benchmark.",
            "Time the same precisions, batches, threads and runners.",
        )
    return judged


def _regressions(row: BenchmarkRow, old: BenchmarkRow) -> Iterator[Check]:
    assert row.latency is not None
    assert old.latency is not None
    for name in ("p50", "p99"):
        values = [getattr(one, f"{name}_ms") for one in (row.latency, old.latency)]
        new_, old_ = (
            one.intervals_ms.get(name) or Interval(value=value, low=value, high=value)
            for one, value in zip((row.latency, old.latency), values, strict=True)
        )
        ratio, least = new_.value / old_.value, new_.low / old_.high
        limit = 1 + BASELINE_TOLERANCE
        yield Check(
            name=f"{name} against the baseline",
            value=ratio,
            bound=least,
            limit=limit,
            comparison="<=",
            verdict="FAIL" if least > limit else "PASS",
            detail=f"{new_.value:.4g} ms, before {old_.value:.4g} ms",
        )


def refuse_other_machine(here: DeviceFacts, there: DeviceFacts) -> None:
    """Refuse a baseline of another machine, whose times show no regression.

    Raises:
        UsageError: the baseline is of another one.
    """
    for what in ("cpu", "gpu", "cores"):
        if getattr(here, what) != getattr(there, what):
            raise UsageError(
                f"The baseline was measured on another machine: {what} {getattr(there, what)}, here "
                f"{getattr(here, what)}.",
                "Compare benchmarks of one machine.",
            )


def _refuse_other_mode(now: BenchmarkDocument, before: BenchmarkDocument) -> None:
    modes = [{row.telemetry.power_mode for row in one.rows if row.telemetry is not None} for one in (now, before)]
    if all(modes) and modes[0] != modes[1]:
        raise UsageError(
            f"The baseline was measured in power mode {_words(modes[1])}, this in {_words(modes[0])}.",
            "Set the same mode with nvpmodel.",
        )


def _words(modes: Iterable[str | None]) -> str:
    return ", ".join(sorted(mode or "unknown" for mode in modes))


def _key(row: BenchmarkRow) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in _SAME_ROW)
