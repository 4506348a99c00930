"""Decide what to ship, for `export`, `validate`, `benchmark`, `run`, `deploy` and the report. Pure.

In this order: the student against its teacher and the commonest class, each precision against the student, then
latency, energy and size. Of what passes, the fastest that was measured on the device that is asked about; where
nothing was measured there, the smallest, and the sentence says so. The device is the bundle's target; an older
bundle has none, and there every device counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from dskd_export.benchmark.candidates import Model, find_unknown, models_of, select_measured_on
from dskd_export.benchmark.sentences import (
    describe_detail,
    describe_device,
    describe_failure,
    describe_pair,
    describe_untimed,
    describe_winner,
)
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.documents.validation import ValidationDocument, Verdict
from dskd_export.validation.verdicts import worst_of


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

    @property
    def slower(self) -> str:
        """A quantised model that is slower there than a floating-point one, in words; empty: it is not."""


CandidateT = TypeVar("CandidateT", bound=Candidate)


def pick(candidates: Iterable[CandidateT], verdict: Verdict = "PASS") -> CandidateT | None:
    """Pick the model to ship among those of one device; None where none has the verdict.

    torch is not deployed: it is picked where nothing else was timed. A quantised model that is slower than a
    floating-point one is picked where no other model has the verdict.

    Args:
        candidates: of one device.
        verdict: required of the model.
    """
    able = [one for one in candidates if one.verdict == verdict]
    timed = [one for one in able if one.latency_p50_ms is not None]
    if timed:
        return min(timed, key=lambda one: (one.runner == "torch", bool(one.slower), one.latency_p50_ms))
    files = [one for one in able if one.size_mb is not None]
    return min(files, key=lambda one: one.size_mb or 0.0, default=None)


@dataclass(frozen=True)
class Decision:
    """The model to ship from a bundle to one device.

    Attributes:
        verdict: PASS: ship `model`; NOT SHOWN: `model` would be the one if more images or calls show it;
            FAIL: do not ship; NOT JUDGED: nothing or only a pair was validated, or the student itself was not
            judged: `model` would be the one if it passes.
        model: the winner; None: there is none.
        timed: the winner is the fastest that was timed on the device, not the smallest.
        sentence: for people: the first line of a report, below the tables of a command.
        device: that is decided for; empty: unknown.
        detail: why this model, what is slower, and what was timed that does not count; sentences, or empty.
    """

    verdict: Verdict
    model: Model | None
    timed: bool
    sentence: str
    device: str = ""
    detail: str = ""


def decide(validation: ValidationDocument | None, benchmark: BenchmarkDocument | None) -> Decision:
    """Decide what to ship.

    Args:
        validation: of the bundle, which names the target; None: nothing is shipped.
        benchmark: of any device; one of another bundle is ignored, and of another device it decides nothing.
    """
    if validation is None:
        return Decision("NOT JUDGED", None, False, "Not validated: nothing is known to be good enough to ship.")
    if validation.student is None and validation.verdict == "NOT JUDGED":
        return Decision("NOT JUDGED", None, False, f"Nothing is decided: {validation.reason}.")
    if validation.student is None:
        return Decision("NOT JUDGED", None, False, describe_pair(validation))
    if benchmark is not None and benchmark.bundle_sha256 != validation.bundle_sha256:
        benchmark = None
    here = select_measured_on(benchmark, validation.target)
    models = list(models_of(validation, here))
    wanted: tuple[Verdict, ...] = ("PASS", "NOT SHOWN")
    for verdict in wanted:
        winner = pick(models, verdict)
        if winner is not None:
            rivals = _count_rivals(winner, models)
            device = describe_device(winner, validation, here)
            words = describe_winner(winner, rivals, validation, here)
            detail = describe_detail(winner, rivals, models, validation, (here, benchmark))
            found, sentence = _conclude(winner, words, device, validation)
            return Decision(found, winner, winner.latency_p50_ms is not None, sentence, device, detail)
    device = validation.target or ""
    if worst_of(one.verdict for one in models) == "FAIL":
        sentence = f"Do not ship: {describe_failure(validation, models)}."
        more = validation.student.verdict == "FAIL" and validation.student.reason not in sentence
        parts = [f"The student is {validation.student.reason}."] if more else []
        if device and here is None:
            untimed = describe_untimed(validation, device)
            parts.append(f"{untimed[0].upper()}{untimed[1:]}.")
        return Decision("FAIL", None, False, sentence, device, " ".join(parts))
    sentence = "Nothing was judged, so nothing is known to be good enough to ship."
    return Decision("NOT JUDGED", None, False, sentence, device)


def _conclude(winner: Model, words: str, device: str, validation: ValidationDocument) -> tuple[Verdict, str]:
    """The verdict where there is a model to ship, or a candidate, and its sentence."""
    unknown = find_unknown(validation)
    if winner.verdict == "NOT SHOWN":
        candidate = winner.name.precision + (f" on {device}" if device else "")
        return "NOT SHOWN", f"Not shown to be good enough: {winner.reason}. The candidate is {candidate}."
    if unknown:
        return "NOT JUDGED", f"The student itself is not judged here ({unknown}). If it passes, ship {words}."
    return "PASS", f"Ship {words}."


def _count_rivals(winner: Model, models: Sequence[Model]) -> int:
    """Count the models that the winner was chosen from: timed or not as it is; torch is not deployed."""

    def kind(model: Model) -> tuple[object, ...]:
        return model.verdict, model.latency_p50_ms is None, model.runner == "torch"

    return len({one.name for one in models if kind(one) == kind(winner)})
