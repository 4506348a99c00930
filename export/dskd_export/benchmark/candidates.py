"""List the models that could be shipped to one device, each with its verdict and what it costs there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dskd_export.benchmark.budget import reason_of_model, verdict_of_model
from dskd_export.documents.benchmark import BenchmarkDocument, BenchmarkRow, Latency, RowJudgement
from dskd_export.documents.precision import QUANTIZED
from dskd_export.documents.runner_name import RunnerName
from dskd_export.documents.validation import Judgement, ValidationDocument, Verdict
from dskd_export.precision.targets import is_measured_on
from dskd_export.validation.verdicts import reason_of, verdict_of, worst_of

NOT_VALIDATED = "its accuracy was not validated here"

_SAME_CONDITIONS = ("model", "runner", "provider", "batch", "threads", "streams", "part")


@dataclass(frozen=True)
class Model:
    """A model of a bundle with its verdict on one device.

    Attributes:
        name: for example `onnxruntime:cpu:int8`.
        verdict: of the student, its accuracy and its budget together.
        reason: of the verdict.
        size_mb: of its file.
        latency_p50_ms: of the smallest batch; None: not timed.
        latency_p99_ms: the same.
        stable: the times are.
        slower: a quantised model that is slower than a floating-point one there, in words; empty: it is not.
    """

    name: RunnerName
    verdict: Verdict
    reason: str
    size_mb: float | None = None
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    stable: bool = True
    slower: str = ""

    @property
    def runner(self) -> str:
        """torch, onnxruntime or tensorrt."""
        return self.name.kind


def select_measured_on(benchmark: BenchmarkDocument | None, target: str | None) -> BenchmarkDocument | None:
    """Select the rows and judgements that a benchmark measured on the target; None: there are none.

    Args:
        benchmark: of any device.
        target: see `is_measured_on`.
    """
    if benchmark is None:
        return None
    device = benchmark.provenance.device
    rows = [row for row in benchmark.rows if is_measured_on(target, device, name_of(row))]
    judgements = [one for one in benchmark.judgements if is_measured_on(target, device, name_of(one))]
    return benchmark.model_copy(update={"rows": rows, "judgements": judgements}) if rows else None


def models_of(validation: ValidationDocument, benchmark: BenchmarkDocument | None) -> Iterator[Model]:
    """List every timed model, then those that were validated and not benchmarked.

    A model that was not timed is NOT SHOWN to meet a limit that only a benchmark can judge.

    Args:
        validation: of the bundle.
        benchmark: of the device that is decided for, and of the same bundle; None: nothing was measured there.
    """
    tried = set[str]()
    rows = rows_of(benchmark)
    for row in rows:
        tried.add(name_of(row))
        if row.latency is not None:
            verdict, reason = verdict_on(row, validation, benchmark)
            times = (row.latency.p50_ms, row.latency.p99_ms, row.latency.stable)
            yield Model(name_of(row), verdict, reason, row.size_mb, *times, slower=find_slower(row, rows))
    for one in validation.judgements:
        if one.runner not in tried and one.verdict != "NOT RUN":
            parts = [student_verdict(validation), (one.verdict, one.reason)]
            if validation.speed_limits:
                where = f" on {validation.target}" if validation.target else ""
                parts.append(("NOT SHOWN", f"{', '.join(validation.speed_limits)}: not measured{where}"))
            verdict, reason = _worst(parts)
            if validation.student is None:
                verdict, reason = "NOT JUDGED", NOT_VALIDATED
            yield Model(one.runner, verdict, reason, one.size_mb)


def rows_of(benchmark: BenchmarkDocument | None) -> list[BenchmarkRow]:
    """The student's rows of the engine alone at the smallest batch, timed or not."""
    if benchmark is None:
        return []
    smallest = min((row.batch for row in benchmark.rows), default=1)
    return [
        row for row in benchmark.rows if row.model == "student" and row.part == "engine" and row.batch == smallest
    ]


def find_slower(row: BenchmarkRow, rows: Iterable[BenchmarkRow]) -> str:
    """Find the floating-point model that a quantised one is slower than, in words; empty: there is none.

    Compared are the 95 % intervals of the medians, under the same conditions: what overlaps is noise, and what is
    UNSTABLE or has no interval decides nothing.

    Args:
        row: of a model.
        rows: of the same benchmark.
    """
    own = _median(row)
    if row.precision not in QUANTIZED or own is None:
        return ""
    rivals = [
        (other, median)
        for other in rows
        if other.precision not in QUANTIZED
        and all(getattr(other, key) == getattr(row, key) for key in _SAME_CONDITIONS)
        and (median := _median(other)) is not None
        and median[1] < own[0]
    ]
    if not rivals:
        return ""
    fastest, _ = min(rivals, key=lambda pair: pair[1])
    assert fastest.latency is not None  # it has a median
    assert row.latency is not None
    return f"slower than {fastest.precision}: {row.latency.p50_ms:.3g} against {fastest.latency.p50_ms:.3g} ms"


def _median(row: BenchmarkRow) -> tuple[float, float] | None:
    """The ends of the interval of the median in ms; None: it decides nothing."""
    latency: Latency | None = row.latency
    interval = None if latency is None or not latency.stable else latency.intervals_ms.get("p50")
    return None if interval is None else (interval.low, interval.high)


def list_slower(benchmark: BenchmarkDocument) -> list[str]:
    """List the quantised models that are slower than a floating-point one in a benchmark, in words."""
    rows = [row for row in benchmark.rows if row.part == "engine"]
    found = [(row, find_slower(row, rows)) for row in rows]
    return [f"{row.model} {name_of(row)}, batch {row.batch}: {why}" for row, why in found if why]


def verdict_on(
    row: BenchmarkRow, validation: ValidationDocument | None, benchmark: BenchmarkDocument | None
) -> tuple[Verdict, str]:
    """The verdict on a timed model and its reason: the student, its accuracy and its speed together.

    Args:
        row: of the model.
        validation: of the same bundle.
        benchmark: that the row is of, for the budget.
    """
    if row.latency is None:
        return "NOT JUDGED", row.unavailable or "not measured"
    if validation is not None and validation.student is None:
        validation = None  # of a pair: whatever it says, the model may be no good
    judgement = None if validation is None else judgement_on(row, validation.judgements)
    speed = [one for one in benchmark.judgements if _same_model(one, row)] if benchmark is not None else []
    parts = [(verdict_of_model(one), reason_of_model(one)) for one in speed]
    if validation is None or judgement is None or judgement.verdict == "NOT RUN":
        slow = next((part for part in parts if part[0] == "FAIL"), None)
        return slow or ("NOT JUDGED", NOT_VALIDATED)
    return _worst([student_verdict(validation), (judgement.verdict, judgement.reason), *parts])


def judgement_on(row: BenchmarkRow, judgements: Sequence[Judgement]) -> Judgement | None:
    """Judgement on a timed model: on its runner, else the worst of its precision on any runner."""
    return judgement_of(name_of(row), judgements)


def judgement_of(name: RunnerName, judgements: Sequence[Judgement]) -> Judgement | None:
    """Judgement on a model by its name, as `judgement_on` finds it."""
    exact = next((one for one in judgements if one.runner == name), None)
    if exact is not None and exact.verdict != "NOT RUN":
        return exact
    same = [one for one in judgements if one.precision == name.precision]
    order = ("FAIL", "NOT SHOWN", "PASS", "NOT RUN")
    return min(same, key=lambda one: order.index(one.verdict), default=None)


def find_unknown(validation: ValidationDocument) -> str:
    """Find why the student was not compared with its teacher or on labelled images; empty where it was."""
    student = validation.student
    if student is None:
        return "a pair was compared"
    if student.verdict == "NOT JUDGED":
        return student.reason
    return next((check.detail for check in student.checks if check.verdict == "NOT JUDGED"), "")


def student_verdict(validation: ValidationDocument) -> tuple[Verdict, str]:
    """The verdict on the student and the bundle, which all models share, and its reason."""
    student = validation.student
    parts = [] if student is None else [(student.verdict, student.reason)]
    return _worst([*parts, (verdict_of(validation.checks), reason_of(validation.checks))])


def name_of(row: BenchmarkRow | RowJudgement) -> RunnerName:
    """For example `onnxruntime:cpu:int8`."""
    return RunnerName.of(row.runner, row.provider, row.precision)


def _worst(parts: Sequence[tuple[str, str]]) -> tuple[Verdict, str]:
    """The worst verdict, with the reason of the first that has it."""
    verdict = worst_of(verdict for verdict, _ in parts)
    return verdict, next((reason for found, reason in parts if found == verdict), "")


def _same_model(judgement: RowJudgement, row: BenchmarkRow) -> bool:
    """Whether a budget's judgement is of the model of a row, which may be of another batch."""
    keys = ("model", "runner", "provider", "precision", "threads")
    return all(getattr(judgement, key) == getattr(row, key) for key in keys)
