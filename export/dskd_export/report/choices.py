"""What can be shipped: every measured model on every device, with all that decides. Pure.

A row joins a benchmark with the validation of the same bundle and precision, wherever that was made: accuracy is
the bundle's, time and energy are the device's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dskd_export.benchmark_document import BenchmarkRow, RowJudgement
from dskd_export.documents import Interval, Judgement
from dskd_export.gate import sentence
from dskd_export.report.load import Run
from dskd_export.speed_gate import meets

Verdict = Literal["PASS", "FAIL", "NOT JUDGED"]


@dataclass(frozen=True)
class Source:
    """A run folder, or the results of a bundle on a device, under a name that no other has."""

    name: str
    run: Run

    @property
    def device(self) -> str:
        """What its benchmark was made on."""
        benchmark = self.run.benchmark
        if benchmark is None:
            return "no benchmark"
        facts = benchmark.provenance.device
        return facts.gpu or facts.cpu


@dataclass(frozen=True)
class Choice:
    """One model on one runner of one device, at the smallest batch that was timed; arrays in, logits out.

    Attributes:
        source: that timed it.
        device: CPU or GPU, in words.
        role: teacher or student.
        model: timm architecture; empty where nobody says.
        method: of the distillation; empty where nobody says.
        row: as it was timed.
        top1: accuracy on the validation images, a fraction; None: not measured.
        accuracy_of: what that was measured on.
        verdict: of accuracy and budget together.
        reason: why not PASS.
    """

    source: str
    device: str
    role: Literal["teacher", "student"]
    model: str
    method: str
    row: BenchmarkRow
    top1: Interval | None
    accuracy_of: str
    verdict: Verdict
    reason: str

    @property
    def p50_ms(self) -> Interval | None:
        """Median latency of a call; without an interval the value alone."""
        return _time(self.row, "p50")

    @property
    def p99_ms(self) -> Interval | None:
        """99th percentile of the latency of a call."""
        return _time(self.row, "p99")

    @property
    def memory_mb(self) -> float | None:
        """Of the GPU where the model is there, else of the process."""
        memory = self.row.memory
        if memory is None:
            return None
        return memory.device_mb if memory.device_mb is not None else memory.resident_mb


def choices(sources: Sequence[Source]) -> list[Choice]:
    """All of them, device by device; rows that were not measured are in it, with their reason."""
    accuracies = {name: value for source in sources for name, value in _accuracies(source).items()}
    return [choice for source in sources for choice in _of_source(source, accuracies)]


def best_of(found: Sequence[Choice]) -> dict[str, Choice | None]:
    """Device -> the fastest student there that passes; None where none does."""
    devices = dict.fromkeys(choice.device for choice in found)
    return {device: _fastest(choice for choice in found if choice.device == device) for device in devices}


def teacher_of(found: Sequence[Choice], device: str) -> Choice | None:
    """The fastest teacher on a device: what a student is held against there."""
    teachers = [one for one in found if one.role == "teacher" and one.device == device and one.row.latency]
    return min(teachers, key=_p50, default=None)


# Bundle, role and precision -> accuracy, and what it was measured on.
_Accuracies = Mapping[tuple[str, str, str], tuple[Interval, str]]


def _accuracies(source: Source) -> dict[tuple[str, str, str], tuple[Interval, str]]:
    """Every runner's accuracy under its bundle and precision; the CPU's ONNX Runtime comes last, and counts."""
    run, found = source.run, dict[tuple[str, str, str], tuple[Interval, str]]()
    if run.validation is not None:
        bundle = run.validation.bundle_sha256
        for name, accuracy in sorted(
            run.validation.accuracy.items(), key=lambda item: "onnxruntime:cpu" in item[0]
        ):
            found[bundle, "student", name.rpartition(":")[2]] = (accuracy.top1, name)
    if run.student is not None and run.student.teacher_accuracy is not None and run.benchmark is not None:
        teacher = (run.student.teacher_accuracy.top1, "distill.json")
        found[run.benchmark.bundle_sha256, "teacher", "fp32"] = teacher
    return found


def _of_source(source: Source, accuracies: _Accuracies) -> Iterator[Choice]:
    benchmark, student = source.run.benchmark, source.run.student
    if benchmark is None:
        return
    smallest = min((row.batch for row in benchmark.rows), default=1)
    verdicts = _judgements(source.run)
    speed = {_key(one): one for one in benchmark.judgements}
    names = {
        "student": "" if source.run.spec is None else source.run.spec.architecture,
        "teacher": "" if student is None or student.teacher is None else student.teacher.name,
    }
    for row in benchmark.rows:
        if row.part != "engine" or row.batch != smallest:
            continue
        accuracy = accuracies.get((benchmark.bundle_sha256, row.model, row.precision))
        verdict: Verdict = "NOT JUDGED"
        reason = "the teacher is what others are held against"
        if row.model == "student":
            verdict, reason = _verdict(row, verdicts.get(row.precision), speed.get(_key(row)))
        yield Choice(
            source=source.name,
            device=source.device,
            role=row.model,
            model=names[row.model],
            method=student.method if student is not None and row.model == "student" else "",
            row=row,
            top1=None if accuracy is None else accuracy[0],
            accuracy_of="" if accuracy is None else accuracy[1],
            verdict=verdict,
            reason=reason,
        )


def _judgements(run: Run) -> dict[str, Judgement]:
    """Precision -> its worst verdict over the providers that ran it."""
    found: dict[str, Judgement] = {}
    for one in run.validation.judgements if run.validation is not None else ():
        known = found.get(one.precision)
        if known is None or (one.verdict == "FAIL" and known.verdict != "FAIL"):
            found[one.precision] = one
    return found


def _verdict(row: BenchmarkRow, judgement: Judgement | None, speed: RowJudgement | None) -> tuple[Verdict, str]:
    if row.latency is None:
        return "NOT JUDGED", row.unavailable or "not measured"
    if judgement is not None and judgement.verdict == "FAIL":
        return "FAIL", judgement.reason
    if speed is not None and not meets(speed):
        return "FAIL", "; ".join(sentence(check) for check in speed.checks if check.verdict != "PASS")
    if judgement is None or judgement.verdict != "PASS":
        return "NOT JUDGED", "its accuracy was not validated here" if speed is None else ""
    return "PASS", ""


def _key(row: BenchmarkRow | RowJudgement) -> tuple[object, ...]:
    return (row.model, row.runner, row.provider, row.precision, row.batch, row.threads, row.part)


def _time(row: BenchmarkRow, name: str) -> Interval | None:
    if row.latency is None:
        return None
    value = float(getattr(row.latency, f"{name}_ms"))
    return row.latency.intervals_ms.get(name) or Interval(value=value, low=value, high=value)


def _p50(choice: Choice) -> float:
    assert choice.row.latency is not None  # callers select measured rows
    return choice.row.latency.p50_ms


def _fastest(found: Iterator[Choice]) -> Choice | None:
    passing = [one for one in found if one.role == "student" and one.verdict == "PASS" and one.row.latency]
    # torch is no way to deploy; it is taken where nothing else was timed.
    return min(passing, key=lambda one: (one.row.runner == "torch", _p50(one)), default=None)
