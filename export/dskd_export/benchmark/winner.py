"""Pick the model to ship, for `export`, `validate`, `benchmark` and the report. Pure.

Of the models that pass, the fastest on this device; where none was timed there, the smallest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from dskd_export.benchmark.budget import reason_of_model, verdict_of_model
from dskd_export.documents.benchmark import BenchmarkDocument, BenchmarkRow, RowJudgement
from dskd_export.documents.runner_name import RunnerName
from dskd_export.documents.validation import Judgement, ValidationDocument, Verdict
from dskd_export.validation.verdicts import reason_of, verdict_of, worst_of

NOT_VALIDATED = "its accuracy was not validated here"


class Candidate(Protocol):
    """A model that could be shipped to one device."""

    @property
    def verdict(self) -> Verdict:
        """Of the student, its accuracy and its budget together."""

    @property
    def runner(self) -> str:
        """torch, onnxruntime or tensorrt."""

    @property
    def latency_p50_ms(self) -> float | None:
        """On the device; None: not timed there."""

    @property
    def size_mb(self) -> float | None:
        """Of the file; None: there is no file."""


CandidateT = TypeVar("CandidateT", bound=Candidate)


def pick(candidates: Iterable[CandidateT], verdict: Verdict = "PASS") -> CandidateT | None:
    """Pick the model to ship among those of one device; None where none has the verdict.

    torch is not deployed: it is picked where nothing else was timed.

    Args:
        candidates: of one device.
        verdict: required of the model.
    """
    able = [one for one in candidates if one.verdict == verdict]
    timed = [one for one in able if one.latency_p50_ms is not None]
    if timed:
        return min(timed, key=lambda one: (one.runner == "torch", one.latency_p50_ms))
    files = [one for one in able if one.size_mb is not None]
    return min(files, key=lambda one: one.size_mb or 0.0, default=None)


@dataclass(frozen=True)
class Model:
    """A model of a bundle with its verdict on one device.

    Attributes:
        name: for example `onnxruntime:cpu:int8`.
        verdict: of the student, its accuracy and its budget together.
        reason: of the verdict.
        size_mb: of its file.
        latency_p50_ms: of the smallest batch; None: not timed.
    """

    name: RunnerName
    verdict: Verdict
    reason: str
    size_mb: float | None = None
    latency_p50_ms: float | None = None

    @property
    def runner(self) -> str:
        """torch, onnxruntime or tensorrt."""
        return self.name.kind


@dataclass(frozen=True)
class Decision:
    """The model to ship from a bundle to one device.

    Attributes:
        verdict: PASS: ship `model`; NOT SHOWN: `model` would be the one if more images or calls show it;
            FAIL: do not ship; NOT JUDGED: nothing or only a pair was validated, or the student itself was not
            judged: `model` would be the one if it passes.
        model: the winner; None: there is none.
        timed: the winner is the fastest that was timed, not the smallest.
        sentence: for people.
    """

    verdict: Verdict
    model: Model | None
    timed: bool
    sentence: str


def decide(validation: ValidationDocument | None, benchmark: BenchmarkDocument | None) -> Decision:
    """Decide what to ship.

    Args:
        validation: of the bundle; None: nothing is shipped.
        benchmark: of the device; one of another bundle is ignored.
    """
    if validation is None:
        return Decision("NOT JUDGED", None, False, "Not validated: nothing is known to be good enough to ship.")
    if validation.student is None and validation.verdict == "NOT JUDGED":
        return Decision("NOT JUDGED", None, False, f"Nothing is decided: {validation.reason}.")
    if validation.student is None:
        return Decision("NOT JUDGED", None, False, _describe_pair(validation))
    if benchmark is not None and benchmark.bundle_sha256 != validation.bundle_sha256:
        benchmark = None
    models = list(models_of(validation, benchmark))
    winner = pick(models)
    if winner is not None:
        words, timed = _words(winner, models, benchmark), winner.latency_p50_ms is not None
        unknown = _unknown_of_student(validation)
        if unknown:
            sentence = f"The student itself is not judged here ({unknown}). If it passes: {words}."
            return Decision("NOT JUDGED", winner, timed, sentence)
        return Decision("PASS", winner, timed, f"Ship {words}.")
    candidate = pick(models, "NOT SHOWN")
    if candidate is not None:
        words = f"Not shown to be good enough: {candidate.reason}. The candidate is {candidate.name}."
        return Decision("NOT SHOWN", candidate, candidate.latency_p50_ms is not None, words)
    if worst_of(one.verdict for one in models) == "FAIL":
        return Decision("FAIL", None, False, f"Do not ship: {_why_not(validation, models)}.")
    return Decision(
        "NOT JUDGED", None, False, "Nothing was judged, so nothing is known to be good enough to ship."
    )


def models_of(validation: ValidationDocument, benchmark: BenchmarkDocument | None) -> Iterator[Model]:
    """List every timed model, then those that were validated and not benchmarked."""
    tried = set[str]()
    for row in rows_of(benchmark):
        tried.add(name_of(row))
        if row.latency is not None:
            verdict, reason = verdict_on(row, validation, benchmark)
            yield Model(name_of(row), verdict, reason, row.size_mb, row.latency.p50_ms)
    for one in validation.judgements:
        if one.runner not in tried and one.verdict != "NOT RUN":
            verdict, reason = _worst([student_verdict(validation), (one.verdict, one.reason)])
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
    exact = next((one for one in judgements if one.runner == name_of(row)), None)
    if exact is not None and exact.verdict != "NOT RUN":
        return exact
    same = [one for one in judgements if one.precision == row.precision]
    order = ("FAIL", "NOT SHOWN", "PASS", "NOT RUN")
    return min(same, key=lambda one: order.index(one.verdict), default=None)


def student_verdict(validation: ValidationDocument) -> tuple[Verdict, str]:
    """The verdict on the student and the bundle, which all models share, and its reason."""
    student = validation.student
    parts = [] if student is None else [(student.verdict, student.reason)]
    return _worst([*parts, (verdict_of(validation.checks), reason_of(validation.checks))])


def name_of(row: BenchmarkRow | RowJudgement) -> RunnerName:
    """For example `onnxruntime:cpu:int8`."""
    return RunnerName.of(row.runner, row.provider, row.precision)


def _describe_pair(validation: ValidationDocument) -> str:
    """Say that the validation of a pair decides nothing, and what would."""
    candidates = ", ".join(one.runner for one in validation.judgements)
    return (
        f"Not checked: {candidates} was compared with {validation.reference} alone, the student was not judged. "
        "Run: dskd-compress validate RUN, without --pair."
    )


def _unknown_of_student(validation: ValidationDocument) -> str:
    """Why the student was not compared with its teacher or on labelled images; empty where it was."""
    student = validation.student
    if student is None:
        return "a pair was compared"
    if student.verdict == "NOT JUDGED":
        return student.reason
    return next((check.detail for check in student.checks if check.verdict == "NOT JUDGED"), "")


def _why_not(validation: ValidationDocument, models: Sequence[Model]) -> str:
    """Why nothing is shipped: the student first, then what all models share, then a model."""
    if validation.student is not None and validation.student.verdict == "FAIL":
        return f"the student is {validation.student.reason}"
    if verdict_of(validation.checks) == "FAIL":
        return f"the bundle fails: {reason_of(validation.checks)}"
    first = min((one for one in models if one.verdict == "FAIL"), key=lambda one: one.runner == "torch")
    return f"{first.name} fails: {first.reason}"


def _worst(parts: Sequence[tuple[str, str]]) -> tuple[Verdict, str]:
    """The worst verdict, with the reason of the first that has it."""
    verdict = worst_of(verdict for verdict, _ in parts)
    return verdict, next((reason for found, reason in parts if found == verdict), "")


def _same_model(judgement: RowJudgement, row: BenchmarkRow) -> bool:
    """Whether a budget's judgement is of the model of a row, which may be of another batch."""
    keys = ("model", "runner", "provider", "precision", "threads")
    return all(getattr(judgement, key) == getattr(row, key) for key in keys)


def _words(winner: Model, models: Sequence[Model], benchmark: BenchmarkDocument | None) -> str:
    able = {
        one.name
        for one in models
        if one.verdict == "PASS" and (one.runner == "torch") == (winner.runner == "torch")
    }
    passing = len(able)
    if winner.latency_p50_ms is None or benchmark is None:
        what = "the only model that passes" if passing == 1 else f"the smallest of {passing} that pass"
        size = "" if winner.size_mb is None else f", {winner.size_mb:.3g} MB"
        return f"{winner.name}: {what}{size}. Nothing was timed on this device"
    facts = benchmark.provenance.device
    what = "the only model that passes" if passing == 1 else f"the fastest of {passing} that pass"
    return f"{winner.name}: {what} on {facts.gpu or facts.cpu}, p50 {winner.latency_p50_ms:.3g} ms"
