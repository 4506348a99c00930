"""The first screen: is the student good enough, and what does it save?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dskd_export.benchmark_document import BenchmarkDocument, BenchmarkRow
from dskd_export.documents import Accuracy, ModelFacts
from dskd_export.gate import checks_of
from dskd_export.report import formatting as fmt
from dskd_export.report.intervals import ratio
from dskd_export.report.load import Run


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
    """The verdict with the figures it rests on."""

    verdict: Literal["PASS", "FAIL", "STALE", "NOT CHECKED"]
    reason: str
    sentence: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Measured:
    """An accuracy and the document it was read from."""

    accuracy: Accuracy
    source: str


def decide(run: Run, stale: Sequence[str]) -> Decision:
    """The decision line. `stale` names the stages whose inputs have changed since."""
    facts = [_accuracy_fact(run), *_cost_facts(run), _latency_fact(run.benchmark)]
    known = {fact.label: fact for fact in facts if fact.known}
    parts = []
    if "Accuracy kept" in known:
        kept = known["Accuracy kept"]
        parts.append(f"The student keeps {kept.value} of the teacher's top-1 accuracy ({kept.interval})")
    nouns = {"Parameters": "parameters", "MACs": "MACs an image", "Size on disk": "on disk"}
    costs = [f"{known[label].value} {noun}" for label, noun in nouns.items() if label in known]
    if costs:
        parts.append(("with " if parts else "The student has ") + ", ".join(costs))
    if "Latency" in known:
        latency = known["Latency"]
        parts.append(f"{'and is' if parts else 'The student is'} {latency.value} ({latency.detail})")
    sentence = ", ".join(parts) + "." if parts else "There is nothing to compare yet."
    verdict, reason = _gate(run, stale)
    return Decision(verdict, reason, sentence, tuple(facts))


def teacher_facts(run: Run) -> ModelFacts | None:
    """The teacher, as the distillation used it or as its own training left it."""
    if run.student is not None and run.student.teacher is not None:
        return run.student.teacher
    return run.teacher.model if run.teacher is not None else None


def student_facts(run: Run) -> ModelFacts | None:
    """The student."""
    return run.student.model if run.student is not None else None


def teacher_accuracy(run: Run) -> Measured | None:
    """The teacher on the validation set."""
    if run.student is not None and run.student.teacher_accuracy is not None:
        return Measured(run.student.teacher_accuracy, "distill.json")
    return Measured(run.teacher.best, "teacher.json, best epoch") if run.teacher is not None else None


def student_accuracy(run: Run) -> Measured | None:
    """The student as exported, where it was measured on as many images as the teacher; else as trained."""
    teacher = teacher_accuracy(run)
    if run.validation is not None:
        for runner, accuracy in run.validation.accuracy.items():
            if runner.startswith("torch"):
                continue
            if run.student is None or teacher is None or accuracy.images == teacher.accuracy.images:
                return Measured(accuracy, f"exported, {runner}, validation.json")
    return Measured(run.student.best, "distill.json, best epoch") if run.student is not None else None


def latency_pair(benchmark: BenchmarkDocument) -> tuple[BenchmarkRow, BenchmarkRow] | None:
    """Teacher and student rows that differ in nothing but the model.

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


def _gate(run: Run, stale: Sequence[str]) -> tuple[Literal["PASS", "FAIL", "STALE", "NOT CHECKED"], str]:
    if run.validation is None:
        return "NOT CHECKED", "validation.json is not in the run folder. Made by: dskd-compress validate"
    checks = list(checks_of(run.validation))
    failed = [f"{where}: {check.name}" for where, check in checks if check.failed]
    if "validate" in stale:
        outcome = "passed" if run.validation.passed else "failed"
        return (
            "STALE",
            f"the gate {outcome}, but for other files than those here. Run again: dskd-compress validate",
        )
    if not run.validation.passed:
        return "FAIL", f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}"
    open_ = sum(check.verdict == "NOT JUDGED" for _, check in checks)
    remarks = [f"{len(checks) - open_} checks of the export passed"]
    if open_:
        remarks.append(f"{open_} could not be judged")
    for one in run.validation.judgements:
        if one.verdict == "NOT RUN":
            remarks.append(f"{one.runner} was not run")
        elif one.native is False:
            remarks.append(f"{one.precision} was {one.native_reason.partition(':')[0]}")
    return "PASS", "; ".join(remarks)


def _accuracy_fact(run: Run) -> Fact:
    label = "Accuracy kept"
    student, teacher = student_accuracy(run), teacher_accuracy(run)
    if student is None:
        return Fact(label, "not known", "distill.json is not there. Made by: dskd-compress distill", False)
    if teacher is None:
        return Fact(label, "not known", "the teacher's accuracy was not measured in this run", False)
    kept = ratio(student.accuracy.top1, teacher.accuracy.top1)
    if kept is None:
        return Fact(label, "not known", "the teacher's accuracy may be 0, so there is no ratio", False)
    detail = (
        f"{fmt.percent(student.accuracy.top1.value)} against {fmt.percent(teacher.accuracy.top1.value)}, "
        f"{fmt.count(student.accuracy.images)} images"
    )
    interval = f"95{fmt.NBSP}% interval {fmt.percent_range(kept)}"
    return Fact(label, fmt.percent(kept.value), detail, interval=interval)


def _cost_facts(run: Run) -> list[Fact]:
    teacher, student = teacher_facts(run), student_facts(run)
    wanted = (
        ("Parameters", "parameters", fmt.scaled, ("fewer", "more", "as many")),
        ("MACs", "macs", fmt.scaled, ("fewer", "more", "as many")),
        ("Size on disk", "size_mb", fmt.megabytes, ("smaller", "larger", "as large")),
    )
    facts = []
    for label, field, text, words in wanted:
        if teacher is None or student is None:
            who = "the student: distill.json is not there" if student is None else "no teacher in this run"
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
        return Fact(label, "not measured", "benchmark.json is not there. Made by: dskd-compress benchmark", False)
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
        detail += ", UNSTABLE"
    return Fact(label, fmt.times(before, after, "faster", "slower", "as fast"), detail)
