"""Tables of a validation, the decision, and the exit codes of both. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from dskd_compress.console import Output
from dskd_compress.show.benchmark import find_slow, raise_worst
from dskd_export.benchmark.winner import Decision, decide
from dskd_export.documents.base import Accuracy, read_document
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.documents.validation import Check, PairedAccuracy, ValidationDocument
from dskd_export.errors import GateFailed, NotShown
from dskd_export.validation.verdicts import format_limit, iter_checks, list_causes, unproven

_CHECK_LIMITS = "Check validation.json, or change the limits in validate and budget."


def decision_in(folder: Path, document: ValidationDocument | None = None) -> Decision:
    """Decide what to ship, by the validation and the benchmark in a run folder or a folder of results.

    Args:
        folder: of both.
        document: the validation, which the folder need not hold; None: the one that is there.
    """
    validation, benchmark = folder / "validation.json", folder / "benchmark.json"
    if document is None and validation.is_file():
        document = read_document(validation, ValidationDocument)
    return decide(
        document,
        read_document(benchmark, BenchmarkDocument) if benchmark.is_file() else None,
    )


def print_validation(document: ValidationDocument, decision: Decision, output: Output) -> None:
    """Print what to ship, one row per model and per check, and the reasons of the verdicts."""
    output.plain(decision.sentence)
    output.table(
        "Accuracy",
        ["model", "top-1", "95 %", "lost", "95 %", "ECE"],
        list(_accuracies(document)),
    )
    output.table("Checks", ["check", "value", "bound", "limit", "verdict"], list(_checks(document)))
    output.table(
        f"Verdicts, against {document.reference}",
        ["model", "verdict", "computed in", "MB"],
        [
            [
                one.runner,
                one.verdict,
                one.computed_in or "",
                "" if one.size_mb is None else f"{one.size_mb:.2f}",
            ]
            for one in document.judgements
        ],
    )
    if document.student is not None:
        output.plain(f"student: {document.student.verdict}: {document.student.reason}.")
    for judgement in document.judgements:
        if judgement.verdict == "NOT RUN":
            output.warn(f"{judgement.runner} was not run: {judgement.reason}")
        else:
            output.plain(f"{judgement.runner}: {judgement.verdict}: {judgement.reason}.")
    for cause in list_causes(document):
        output.warn(cause)
    if decision.detail:
        output.plain(decision.detail)


def refuse_failed(document: ValidationDocument, accept_unproven: bool = False) -> None:
    """End with the gate's exit code unless the validation passed.

    Args:
        accept_unproven: NOT SHOWN is accepted.

    Raises:
        GateFailed: names what failed, and the first cause.
        NotShown: names what is not shown, and how many images would show it.
    """
    raise_worst([_find_failed(document, accept_unproven)])


def _find_failed(document: ValidationDocument, accept_unproven: bool) -> GateFailed | NotShown | None:
    if document.verdict == "FAIL":
        causes = list_causes(document)
        hint = f"Likely cause: {causes[0]}." if causes else _advice(document)
        return GateFailed(f"The exported student does not pass: {document.reason}.", hint)
    if document.verdict != "PASS" and not accept_unproven:
        return NotShown(f"The exported student is not shown to pass: {document.reason}.", _more_images(document))
    return None


def _advice(document: ValidationDocument) -> str:
    """A hint where a check failed without a known cause."""
    if document.student is not None and document.student.verdict == "FAIL":
        return "Train longer (distill --epochs N), start from pretrained weights, or choose a larger student."
    return _CHECK_LIMITS


def refuse_undecided(decision: Decision, accept_unproven: bool) -> None:
    """End with the gate's exit code unless there is a model to ship.

    Raises:
        GateFailed: nothing is to be shipped.
        NotShown: a model is the candidate, but not shown to pass; not raised with `accept_unproven`.
    """
    if decision.verdict == "NOT SHOWN" and not accept_unproven:
        raise NotShown(decision.sentence, "Validate on more images, or accept it: --accept-unproven")
    if decision.verdict == "FAIL" or (decision.verdict == "NOT JUDGED" and decision.model is None):
        raise GateFailed(decision.sentence, _CHECK_LIMITS)


def refuse_run(
    validation: ValidationDocument | None, benchmark: BenchmarkDocument | None, accept_unproven: bool
) -> None:
    """End with the worst exit code of a run's stages; None: the stage was not part of the run.

    Raises:
        GateFailed: a stage failed.
        NotShown: none failed, and one is not shown to pass; not raised with `accept_unproven`.
    """
    failed = None if validation is None else _find_failed(validation, accept_unproven)
    slow = None if benchmark is None else find_slow(benchmark.judgements, [])
    raise_worst([failed, None if accept_unproven and isinstance(slow, NotShown) else slow])


def _more_images(document: ValidationDocument) -> str:
    open_ = [check for _, check in iter_checks(document) if check.verdict == "NOT SHOWN"]
    needed = unproven(open_).images_needed if open_ else None
    how = (
        "Allow more in budget"
        if needed is None
        else f"Validate on {needed:,} labelled images, allow more in budget"
    )
    return f"{how}, or accept it: --accept-unproven"


def _accuracies(document: ValidationDocument) -> Iterator[list[str]]:
    """Rows of the teacher, the student, then the models."""
    student = document.student
    if student is not None and student.teacher_accuracy is not None:
        yield _accuracy("teacher", student.teacher_accuracy, None)
    lost = {str(one.runner): one.accuracy for one in document.judgements}
    for name, accuracy in document.accuracy.items():
        yield _accuracy(name, accuracy, lost.get(name))


def _accuracy(name: str, accuracy: Accuracy, paired: PairedAccuracy | None) -> list[str]:
    top1 = accuracy.top1
    row = [name, f"{top1.value:.2%}", f"{100 * top1.low:.1f}-{100 * top1.high:.1f}"]
    if paired is None:
        return [*row, "", "", ""]
    drop = paired.top1_drop
    return [
        *row,
        f"{100 * drop.value:+.2f}",
        f"{100 * drop.low:+.2f} to {100 * drop.high:+.2f}",
        f"{paired.calibration_error:.3f}",
    ]


def _checks(document: ValidationDocument) -> Iterator[list[str]]:
    """Rows of checks, below a row that names their model."""
    for name, group in groupby(iter_checks(document), key=lambda pair: pair[0]):
        yield [name, "", "", "", ""]
        for _, check in group:
            yield _check(check)


def _check(check: Check) -> list[str]:
    return [
        f"  {check.name}",
        "-" if check.value is None else f"{check.value:.3g}",
        "" if check.bound is None else f"{check.bound:.3g}",
        format_limit(check),
        check.verdict,
    ]
