"""Decide whether the student is good enough, and what it saves: the first screen of the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from dskd_export.benchmark.winner import Decision as Winner
from dskd_export.benchmark.winner import decide as pick_winner
from dskd_export.documents.benchmark import BenchmarkDocument, BenchmarkRow
from dskd_export.documents.validation import ValidationDocument, Verdict
from dskd_export.report import formatting as fmt
from dskd_export.report.choices import Choice, Source, best_of
from dskd_export.report.first_screen import name_runs
from dskd_export.report.load import Run
from dskd_export.report.series import ratio
from dskd_export.validation.verdicts import worst_of

DecisionVerdict = Literal["PASS", "NOT SHOWN", "FAIL", "STALE", "NOT CHECKED"]

_NOT_VALIDATED = "Not validated: whether the student is good enough to ship is unknown."
_STALE = "Validate again: the files have changed since the last validation."


@dataclass(frozen=True)
class Fact:
    """One figure of the decision; `known` is False where `value` is a reason instead."""

    label: str
    value: str
    detail: str
    known: bool = True
    interval: str = ""


@dataclass(frozen=True)
class Decision:
    """The verdict with the figures it rests on.

    Attributes:
        verdict: PASS: something can be shipped.
        sentence: the decision, the first sentence of the report.
        reason: what it rests on, and what is left out.
        facts: accuracy, cost and latency against the teacher, a figure each; none of several runs.
    """

    verdict: DecisionVerdict
    sentence: str
    reason: str
    facts: tuple[Fact, ...]


def decide(run: Run, stale: Sequence[str], found: Sequence[Choice] = ()) -> Decision:
    """Decide for one run.

    Args:
        run: what is known.
        stale: stages whose inputs have changed since.
        found: what can be shipped.
    """
    verdict, sentence, reason = _gate(run, stale)
    ship = _ship_facts(found) if verdict == "PASS" else []
    facts = [*ship, _accuracy_fact(run), *_cost_facts(run), _latency_fact(run.benchmark)]
    return Decision(verdict, sentence, reason, tuple(facts))


def decide_between(sources: Sequence[Source], found: Sequence[Choice], stale: Sequence[str]) -> Decision:
    """Decide over several runs and devices: which model for each device, and what it costs in accuracy.

    Args:
        sources: of the choices.
        found: what can be shipped.
        stale: stages whose inputs have changed since, with their source.
    """
    best = best_of(found)
    shipped = {device: one for device, one in best.items() if one is not None}
    names = name_runs(found)
    words = [_name_shipped(device, one, names[one.source]) for device, one in shipped.items()]
    ship = f"Ship {_join(words)}." if words else ""
    reason = f"{len(best)} {'device' if len(best) == 1 else 'devices'}, {len(sources)} results."
    if stale:
        return Decision("STALE", _STALE, f"Changed since: {', '.join(stale)}.", ())
    if all(one.role == "teacher" for one in found):
        return Decision("NOT CHECKED", _NOT_VALIDATED, "No student was validated or timed.", ())
    without = {device: _why_none(device, found) for device, one in best.items() if one is None}
    if not without:
        return Decision("PASS", ship, reason, ())
    verdict = worst_of(verdict for verdict, _ in without.values())
    where, why = ", ".join(without), "; ".join(dict.fromkeys(why for _, why in without.values() if why))
    if verdict == "FAIL":
        sentence = f"Do not ship on {where}: {why}."
    elif verdict == "NOT SHOWN":
        sentence = f"Not shown to be good enough on {where}: {why}."
    else:
        sentence = f"Nothing was judged on {where}: {why or 'no student was validated'}."
    made: DecisionVerdict = "NOT CHECKED" if verdict == "NOT JUDGED" else verdict
    return Decision(made, f"{sentence} {ship}".strip(), reason, ())


def _name_shipped(device: str, one: Choice, run: str) -> str:
    """Which precision of which run on which device, and how fast."""
    cost = "not measured there"
    if one.row.latency is not None:
        cost = f"{fmt.milliseconds(one.row.latency.p99_ms)} p99"
    return f"{one.row.precision} of {run} on {device} ({cost})"


def _join(parts: Iterable[str]) -> str:
    """Words with commas, and the last with an `and`."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def _why_none(device: str, found: Sequence[Choice]) -> tuple[Verdict, str]:
    """Find the verdict closest to a pass on a device where none passes, and its reason."""
    students = [one for one in found if one.device == device and one.role == "student"]
    for verdict in ("NOT SHOWN", "FAIL"):
        one = next((one for one in students if one.verdict == verdict), None)
        if one is not None:
            return verdict, f"{one.source}: {one.reason}"
    return "NOT JUDGED", next((one.reason for one in students if one.reason), "")


def _ship_facts(found: Sequence[Choice]) -> list[Fact]:
    """Make one figure a device: the precision to ship there, with its cost."""
    facts = []
    best = best_of(found)
    for device, one in best.items():
        label = "To ship" if len(best) == 1 else device
        if one is None:
            facts.append(Fact(label, "nothing", "no student passes accuracy and budget", False))
            continue
        source = f"{one.source}: " if len(best) > 1 or len({each.source for each in found}) > 1 else ""
        top1 = "" if one.top1 is None else f"top-1 {fmt.percent_interval(one.top1)}"
        if one.row.latency is None:
            detail = f"{source}{fmt.runner_of(one.row)}, the smallest that passes; {one.row.unavailable}"
            facts.append(Fact(label, one.row.precision, detail, interval=top1))
            continue
        p50, p99 = (fmt.milliseconds(ms) for ms in (one.row.latency.p50_ms, one.row.latency.p99_ms))
        detail = f"{source}{fmt.runner_of(one.row)}, p50 {p50}, p99 {p99} at batch {one.row.batch}"
        if one.row.energy_per_image_mj is not None:
            detail += f", {fmt.significant(one.row.energy_per_image_mj.value)}{fmt.NBSP}mJ per image"
        if not one.row.latency.stable:
            detail += ", timing unstable"
        if one.slower:
            detail += f", {one.slower}"
        facts.append(Fact(label, one.row.precision, detail, interval=top1))
    return facts


def latency_pair(benchmark: BenchmarkDocument) -> tuple[BenchmarkRow, BenchmarkRow] | None:
    """Find teacher and student rows that differ in nothing but the model.

    The smallest batch comes first, then a deployment runner before torch, a GPU before the CPU, and fp32.
    """
    rows = [row for row in benchmark.rows if row.part == "engine" and row.latency is not None]

    def cell(row: BenchmarkRow) -> tuple[object, ...]:
        return (row.batch, row.runner, row.provider, row.precision, row.threads)

    def rank(row: BenchmarkRow) -> tuple[object, ...]:
        return (row.batch, row.runner == "torch", row.provider == "cpu", row.precision != "fp32", row.runner)

    teachers = {cell(row): row for row in rows if row.model == "teacher"}
    pairs = [(teachers[cell(row)], row) for row in rows if row.model == "student" and cell(row) in teachers]
    return min(pairs, key=lambda pair: rank(pair[1]), default=None)


def _gate(run: Run, stale: Sequence[str]) -> tuple[DecisionVerdict, str, str]:
    """Verdict, sentence and reason."""
    if run.validation is None:
        return "NOT CHECKED", _NOT_VALIDATED, "validation.json is missing. Run: dskd-compress validate."
    if "validate" in stale:
        was = f"The verdict was {run.validation.verdict}, for files that have changed since"
        return "STALE", _STALE, f"{was}. Run: dskd-compress validate."
    made = pick_winner(run.validation, run.benchmark)
    verdict: DecisionVerdict = "NOT CHECKED" if made.verdict == "NOT JUDGED" else made.verdict
    return verdict, fmt.unbroken(made.sentence), fmt.unbroken(_reason(run.validation, made))


def _reason(validation: ValidationDocument, made: Winner) -> str:
    """Sum up the student, and the models that are not the one to ship."""
    if made.verdict == "FAIL":
        return made.detail
    if made.verdict == "NOT JUDGED":
        return f"{validation.reason}."
    remarks = []
    if validation.student is not None and made.verdict == "PASS":
        remarks.append(validation.student.reason)
    left_out = {
        name: [one.precision for one in validation.judgements if one.verdict == verdict]
        for name, verdict in (("fails", "FAIL"), ("is not shown to pass", "NOT SHOWN"), ("was not run", "NOT RUN"))
    }
    for name, precisions in left_out.items():
        if precisions:
            remarks.append(f"{', '.join(dict.fromkeys(precisions))} {name}")
    return f"{'; '.join(remarks)}." if remarks else ""


def _accuracy_fact(run: Run) -> Fact:
    label = "Accuracy retained"
    student, teacher = run.student_accuracy, run.teacher_accuracy
    if student is None:
        return Fact(label, "not known", "distill.json is missing. Run: dskd-compress distill", False)
    if teacher is None:
        return Fact(label, "not known", "the teacher's accuracy was not measured in this run", False)
    retained = ratio(student.accuracy.top1, teacher.accuracy.top1)
    if retained is None:
        return Fact(label, "not known", "the teacher's accuracy may be 0: no ratio", False)
    detail = (
        f"{fmt.percent(student.accuracy.top1.value)} against {fmt.percent(teacher.accuracy.top1.value)}, "
        f"{fmt.count(student.accuracy.images)} images"
    )
    interval = f"95{fmt.NBSP}% interval {fmt.percent_range(retained)}"
    return Fact(label, fmt.percent(retained.value), detail, interval=interval)


def _cost_facts(run: Run) -> list[Fact]:
    teacher, student = run.teacher_model, run.student_model
    wanted = (
        ("Parameters", "parameters", fmt.scaled, ("fewer", "more", "as many")),
        ("MACs", "macs", fmt.scaled, ("fewer", "more", "as many")),
        ("Size on disk", "size_mb", fmt.megabytes, ("smaller", "larger", "as large")),
    )
    facts = []
    for label, field, text, words in wanted:
        if teacher is None or student is None:
            who = "distill.json is missing" if student is None else "no teacher in this run"
            facts.append(Fact(label, "not known", who, False))
            continue
        before, after = getattr(teacher, field), getattr(student, field)
        if not before or not after:
            who = "teacher" if not before else "student"
            facts.append(Fact(label, "not known", f"not counted for the {who}", False))
            continue
        facts.append(Fact(label, fmt.times(before, after, *words), f"{text(before)} → {text(after)}"))
    return facts


def _latency_fact(benchmark: BenchmarkDocument | None) -> Fact:
    label = "Latency"
    if benchmark is None:
        return Fact(label, "not measured", "benchmark.json is missing. Run: dskd-compress benchmark", False)
    pair = latency_pair(benchmark)
    if pair is None:
        return Fact(label, "not known", "no runner measured both the teacher and the student", False)
    teacher, student = pair
    assert teacher.latency is not None  # latency_pair gives measured rows
    assert student.latency is not None
    before, after = teacher.latency.p50_ms, student.latency.p50_ms
    where = fmt.runner_name(student.runner, student.provider, student.precision, student.threads)
    detail = f"p50 at batch {student.batch}, {fmt.milliseconds(before)} → {fmt.milliseconds(after)}, {where}"
    if not (teacher.latency.stable and student.latency.stable):
        detail += ", timing unstable"
    return Fact(label, fmt.times(before, after, "faster", "slower", "as fast"), detail)
