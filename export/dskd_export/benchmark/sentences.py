"""Put a decision into words: one short sentence to act on, and the detail behind it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dskd_export.benchmark.candidates import Model, find_slower, judgement_of, name_of, rows_of
from dskd_export.documents.base import Interval
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.documents.runner_name import RunnerName
from dskd_export.documents.validation import StudentJudgement, ValidationDocument
from dskd_export.precision.targets import is_measured_on, name_measured_device
from dskd_export.validation.judgement import AGAINST_TEACHER
from dskd_export.validation.verdicts import reason_of, verdict_of

_KINDS = {"onnxruntime": "ONNX Runtime", "tensorrt": "TensorRT"}


def describe_device(model: Model, validation: ValidationDocument, benchmark: BenchmarkDocument | None) -> str:
    """Name the device that a model is decided for; empty: an older bundle, of which nothing was timed.

    Args:
        model: of the bundle.
        validation: of the bundle.
        benchmark: that timed the model, on the device.
    """
    if benchmark is None or model.latency_p50_ms is None:
        return validation.target or ""
    return name_measured_device(validation.target, benchmark.provenance.device, model.name)


def describe_untimed(validation: ValidationDocument, device: str) -> str:
    """Say that nothing was timed on a device, and only of one that nothing ran on that nothing was measured there.

    Args:
        validation: of the bundle.
        device: that is decided for; empty: any.
    """
    facts = validation.provenance.device
    here = any(
        one.verdict != "NOT RUN" and is_measured_on(validation.target, facts, one.runner)
        for one in validation.judgements
    )
    return f"not {'timed' if here else 'measured'} on {device or 'any device'}"


def describe_winner(
    winner: Model, rivals: int, validation: ValidationDocument, benchmark: BenchmarkDocument | None
) -> str:
    """Say what to ship where, what it loses and what it costs, without a full stop: `int8 on jetson-orin: ...`.

    Args:
        winner: of the decision.
        rivals: number of the models that it was chosen from.
        validation: of the bundle.
        benchmark: of the device; None: nothing was measured there.
    """
    device = describe_device(winner, validation, benchmark)
    where = f"{winner.name.precision} on {device}" if device else winner.name.precision
    accuracy = _describe_accuracy(winner, validation)
    if winner.latency_p99_ms is not None:
        cost = f"{winner.latency_p99_ms:.3g} ms p99 in {_describe_runner(winner.name)}"
        cost += "" if winner.stable else ", timing unstable"
        return f"{where}: {accuracy}, {cost}{f', {winner.slower}' if winner.slower else ''}"
    size = "" if winner.size_mb is None else f" ({winner.size_mb:.3g} MB)"
    return f"{where}: {accuracy}, {_describe_choice(winner, rivals)}{size}; {describe_untimed(validation, device)}"


def describe_detail(
    winner: Model,
    rivals: int,
    models: Sequence[Model],
    validation: ValidationDocument,
    measured: tuple[BenchmarkDocument | None, BenchmarkDocument | None],
) -> str:
    """Say why this model and no other, and what was measured that did not count; sentences.

    Args:
        winner: of the decision.
        rivals: number of the models that it was chosen from.
        models: all of them.
        validation: of the bundle.
        measured: on the device that is decided for, and anywhere; None: nothing.
    """
    here, anywhere = measured
    parts = [f"{winner.name}, {_describe_choice(winner, rivals)}"]
    parts += [f"{one.name} is {one.slower}" for one in models if one.slower]
    if here is None and anywhere is not None:
        parts += list(_describe_elsewhere(anywhere, validation.target or ""))
    return " ".join(f"{part}." for part in parts)


def describe_failure(validation: ValidationDocument, models: Sequence[Model]) -> str:
    """Say why nothing is shipped: the student first, then what all models share, then a model."""
    student = validation.student
    if student is not None and student.verdict == "FAIL":
        return f"the student is {_describe_failing_student(student)}"
    if verdict_of(validation.checks) == "FAIL":
        return f"the bundle fails: {reason_of(validation.checks)}"
    first = min((one for one in models if one.verdict == "FAIL"), key=lambda one: one.runner == "torch")
    return f"{first.name} fails: {first.reason}"


def describe_pair(validation: ValidationDocument) -> str:
    """Say that the validation of a pair decides nothing, and what would."""
    candidates = ", ".join(one.runner for one in validation.judgements)
    return (
        f"Not checked: {candidates} was compared with {validation.reference} alone, the student was not judged. "
        "Run: dskd-compress validate RUN, without --pair."
    )


def describe_drop(drop: Interval) -> str:
    """Put a drop against the teacher into words: `0.4 points below the teacher (95 %: 0.0 to 0.9)`."""
    low, high = drop.low, drop.high
    if drop.value < 0:
        low, high = -high, -low
    how = "above" if drop.value < 0 else "below"
    ends = " to ".join(f"{round(100 * end, 1) + 0.0:.1f}" for end in (low, high))
    return f"{_format_points(drop.value)} {how} the teacher (95 %: {ends})"


def _format_points(share: float) -> str:
    points = f"{round(100 * abs(share), 1):g}"
    return f"{points} {'point' if points == '1' else 'points'}"


def _describe_failing_student(student: StudentJudgement) -> str:
    failed = next((check for check in student.checks if check.failed), None)
    if failed is not None and failed.name == AGAINST_TEACHER and student.teacher is not None:
        return f"{_format_points(student.teacher.top1_drop.value)} below its teacher"
    return student.reason


def _describe_accuracy(model: Model, validation: ValidationDocument) -> str:
    """What the model loses against the teacher; else what is known of the student."""
    judgement = judgement_of(model.name, validation.judgements)
    if judgement is not None and judgement.teacher_drop is not None:
        return describe_drop(judgement.teacher_drop)
    student = validation.student
    if student is None:
        return "not judged"
    if student.teacher is not None:
        return f"the student is {describe_drop(student.teacher.top1_drop)}"
    return student.reason


def _describe_runner(name: RunnerName) -> str:
    kind = _KINDS.get(name.kind, name.kind)
    return kind if name.provider == "cpu" or name.kind == "tensorrt" else f"{kind} ({name.provider})"


def _describe_choice(winner: Model, rivals: int) -> str:
    passes = winner.verdict == "PASS"
    best = "smallest" if winner.latency_p50_ms is None else "fastest"
    if rivals == 1:
        what = "the only model that passes" if passes else "the only candidate"
    else:
        what = f"the {best} of {rivals} {'that pass' if passes else 'candidates'}"
    return what if winner.latency_p50_ms is None else f"{what}: p50 {winner.latency_p50_ms:.3g} ms"


def _describe_elsewhere(benchmark: BenchmarkDocument, target: str) -> Iterator[str]:
    """What was timed on another device than the target, which decides nothing there."""
    rows = [row for row in rows_of(benchmark) if row.latency is not None]
    if not rows:
        return
    facts = benchmark.provenance.device
    device = facts.gpu or facts.cpu
    yield f"The times of {device} do not count for {target}"
    for row in rows:
        slower = find_slower(row, rows)
        if slower:
            yield f"There {name_of(row)} is {slower}"
