"""Collect what can be shipped: every measured model on every device, with all that decides. Pure.

A row joins a benchmark with the validation of the same bundle and precision, wherever that was made: accuracy is
the bundle's, time and energy are the device's.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dskd_export.benchmark.candidates import (
    Model,
    find_slower,
    find_unknown,
    models_of,
    name_of,
    select_measured_on,
    verdict_on,
)
from dskd_export.benchmark.sentences import describe_untimed
from dskd_export.benchmark.winner import pick
from dskd_export.documents.base import Interval
from dskd_export.documents.benchmark import BenchmarkRow
from dskd_export.documents.validation import StudentJudgement, Verdict
from dskd_export.precision.targets import is_measured_on
from dskd_export.report.load import Run


@dataclass(frozen=True)
class Source:
    """A run folder, or the results of a bundle on a device, under a name that no other has."""

    name: str
    run: Run

    @property
    def device(self) -> str:
        """What its benchmark was made on, or without one its validation."""
        made = self.run.benchmark or self.run.validation
        if made is None:
            return "no benchmark"
        facts = made.provenance.device
        return facts.gpu or facts.cpu


@dataclass(frozen=True)
class Choice:
    """One model on one runner of one device, at the smallest batch that was timed; arrays in, logits out.

    Attributes:
        source: that timed it.
        device: CPU or GPU, in words.
        role: teacher or student.
        model: timm architecture; empty where unknown.
        method: of the distillation; empty where unknown.
        row: as it was timed.
        top1: accuracy on the validation images, a fraction; None: not measured.
        accuracy_of: what that was measured on.
        verdict: of the student, its accuracy and its budget together.
        reason: of the verdict.
        slower: a quantised model that is slower there than a floating-point one, in words; empty: it is not.
        counts: it was timed on the device that is decided for, or is to be shipped there untimed.
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
    slower: str = ""
    counts: bool = True

    @property
    def runner(self) -> str:
        """torch, onnxruntime or tensorrt."""
        return self.row.runner

    @property
    def latency_p50_ms(self) -> float | None:
        """Median latency of a call; None: it was not timed."""
        return None if self.row.latency is None else self.row.latency.p50_ms

    @property
    def size_mb(self) -> float | None:
        """Of the file; None: it has none."""
        return self.row.size_mb

    @property
    def size(self) -> Interval | None:
        """Size in MB without an interval, for the charts."""
        return None if self.size_mb is None else _exact(self.size_mb)

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
    """List all models device by device, the unmeasured ones with their reason."""
    accuracies = {name: value for source in sources for name, value in _accuracies(source).items()}
    measured = {bundle for source in sources if (bundle := _measured_on_target(source.run)) is not None}
    students = _judged_students(sources)
    joined = [_join_student(source, students) for source in sources]
    return [choice for source in joined for choice in _of_source(source, accuracies, measured)]


def best_of(found: Sequence[Choice]) -> dict[str, Choice | None]:
    """Device -> the student to ship there, as `dskd_export.benchmark.winner` picks it; None where none passes.

    Devices that nothing is decided for are left out, unless there are no others.
    """
    counting = [one for one in found if one.counts]
    devices = dict.fromkeys(one.device for one in counting or found)
    students = [one for one in counting if one.role == "student"]
    return {device: pick(one for one in students if one.device == device) for device in devices}


def teacher_of(found: Sequence[Choice], device: str) -> Choice | None:
    """The fastest teacher on a device, which students are compared with there."""
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


def _judged_students(sources: Sequence[Source]) -> dict[str, StudentJudgement]:
    """Bundle -> the verdict on its student where that was compared with its teacher; of several the worst."""
    found = dict[str, StudentJudgement]()
    order = ("FAIL", "NOT SHOWN", "PASS")
    for source in sources:
        validation = source.run.validation
        if validation is None or validation.student is None or find_unknown(validation):
            continue
        rivals = [one for one in (found.get(validation.bundle_sha256), validation.student) if one is not None]
        found[validation.bundle_sha256] = min(rivals, key=lambda one: order.index(one.verdict))
    return found


def _join_student(source: Source, students: Mapping[str, StudentJudgement]) -> Source:
    """Judge the student of results on a device, which know no teacher, as its run does."""
    validation = source.run.validation
    if validation is None or validation.student is None or not find_unknown(validation):
        return source
    student = students.get(validation.bundle_sha256)
    if student is None:
        return source
    joined = validation.model_copy(update={"student": student})
    return replace(source, run=replace(source.run, validation=joined))


def _measured_on_target(run: Run) -> str | None:
    """The bundle that was validated here, and timed on the device that it is for; None: it was not."""
    validation, benchmark = run.validation, run.benchmark
    if validation is None or benchmark is None or benchmark.bundle_sha256 != validation.bundle_sha256:
        return None
    here = select_measured_on(benchmark, validation.target)
    return None if here is None else validation.bundle_sha256


def _of_source(source: Source, accuracies: _Accuracies, measured: Container[str]) -> Iterator[Choice]:
    """List the models of a source.

    Args:
        source: a run folder or results.
        accuracies: of all sources.
        measured: bundles that a source timed on the device that they are for.
    """
    benchmark, validation, student = source.run.benchmark, source.run.validation, source.run.student
    rows = [] if benchmark is None else list(benchmark.rows)
    smallest = min((row.batch for row in rows), default=1)
    of_timed = "" if benchmark is None else benchmark.bundle_sha256
    # Of two bundles, what was validated says nothing of what was timed.
    same = validation is not None and validation.bundle_sha256 == of_timed
    target = validation.target if validation is not None and same else None
    fits = same or validation is None
    names = {
        "student": "" if source.run.spec is None else source.run.spec.architecture,
        "teacher": "" if student is None or student.teacher is None else student.teacher.name,
    }

    unknown = "" if validation is None or validation.student is None else find_unknown(validation)

    def choice(
        row: BenchmarkRow, bundle: str, verdict: Verdict, reason: str, device: str = source.device
    ) -> Choice:
        facts = None if benchmark is None or row.latency is None else benchmark.provenance.device
        accuracy = accuracies.get((bundle, row.model, row.precision))
        if verdict == "PASS" and unknown:
            verdict, reason = "NOT JUDGED", f"the student itself is not judged here ({unknown})"
        slower = find_slower(row, rows)
        return Choice(
            source=source.name,
            device=device,
            role=row.model,
            model=names[row.model],
            method=student.method if student is not None and row.model == "student" else "",
            row=row,
            top1=None if accuracy is None else accuracy[0],
            accuracy_of="" if accuracy is None else accuracy[1],
            verdict=verdict,
            reason="; ".join(filter(None, (slower, reason))),
            slower=slower,
            counts=facts is None or (fits and is_measured_on(target, facts, name_of(row))),
        )

    for row in rows:
        if row.part != "engine" or row.batch != smallest:
            continue
        if row.model == "teacher":
            yield choice(row, of_timed, "NOT JUDGED", "the teacher is the reference")
        else:
            yield choice(row, of_timed, *verdict_on(row, validation if same else None, benchmark))
    if validation is None:
        return
    here = select_measured_on(benchmark, target) if same else None
    if here is None and validation.bundle_sha256 in measured:
        return  # another source timed it where it is to run
    device = source.device if here is not None else validation.target or source.device
    for model in models_of(validation, here):
        if model.latency_p50_ms is None:
            row = _row_of(model, smallest, describe_untimed(validation, device))
            yield choice(row, validation.bundle_sha256, model.verdict, model.reason, device)


def _row_of(model: Model, batch: int, unavailable: str) -> BenchmarkRow:
    """The row of a model that was validated and not timed."""
    name = model.name
    return BenchmarkRow(
        model="student",
        runner=name.kind,
        provider=name.provider,
        precision=name.precision,
        batch=batch,
        threads=None,
        part="engine",
        latency=None,
        throughput_images_per_s=None,
        size_mb=model.size_mb,
        unavailable=unavailable,
    )


def _time(row: BenchmarkRow, name: str) -> Interval | None:
    if row.latency is None:
        return None
    value = float(getattr(row.latency, f"{name}_ms"))
    return row.latency.intervals_ms.get(name) or _exact(value)


def _exact(value: float) -> Interval:
    return Interval(value=value, low=value, high=value)


def _p50(choice: Choice) -> float:
    assert choice.row.latency is not None  # callers select measured rows
    return choice.row.latency.p50_ms
