"""Tables of a validation, the decision, and the exit codes of both. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from dskd_compress.console import Output
from dskd_compress.show.benchmark import find_slow, raise_worst
from dskd_export.benchmark.candidates import select_measured_on
from dskd_export.benchmark.winner import Decision, decide
from dskd_export.documents.base import Accuracy, read_document
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.documents.validation import Check, PairedAccuracy, ValidationDocument
from dskd_export.errors import GateFailed, NotShown
from dskd_export.validation.judgement import AGAINST_TEACHER
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
    """Print one row per model and per check, and the reasons of the verdicts; the decision follows.

    Args:
        document: of the validation.
        decision: that `print_decision` prints last; the student's reason is left out where it has it.
        output: of the command.
    """
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
    student = document.student
    if student is not None and student.reason not in f"{decision.sentence} {decision.detail}":
        output.plain(f"student: {student.verdict}: {student.reason}.")
    for judgement in document.judgements:
        if judgement.verdict == "NOT RUN":
            output.warn(f"{judgement.runner} was not run: {judgement.reason}")
        else:
            output.plain(f"{judgement.runner}: {judgement.verdict}: {judgement.reason}.")
    for cause in list_causes(document):
        output.warn(cause)


def print_decision(decision: Decision, output: Output) -> None:
    """Print what to ship, and the detail behind it: last on the screen, below all tables."""
    output.plain(decision.sentence)
    if decision.detail:
        output.plain(decision.detail)


def refuse_failed(document: ValidationDocument, accept_unproven: bool = False, again: str = "") -> None:
    """End with the gate's exit code unless the validation passed.

    Args:
        accept_unproven: NOT SHOWN is accepted.
        again: the command that would repeat it, for hints; empty: hints name flags alone.

    Raises:
        GateFailed: names what failed, and the first cause.
        NotShown: names what is not shown, and how many images would show it.
    """
    raise_worst([_find_failed(document, decide(document, None), accept_unproven, again)])


def _find_failed(
    document: ValidationDocument, decision: Decision, accept_unproven: bool, again: str
) -> GateFailed | NotShown | None:
    """Find why a validation does not pass; the message leaves out what the decision says."""
    if document.verdict == "FAIL":
        # Of a student that is too weak, a precision that costs some more is not the cause.
        weak = document.student is not None and document.student.verdict == "FAIL"
        causes = document.causes if weak else list_causes(document)
        hint = f"Likely cause: {causes[0]}." if causes else _advice(document)
        if decision.verdict == "FAIL":
            return _refuse(hint)
        return GateFailed(f"The exported student does not pass: {document.reason}.", hint)
    if document.verdict != "PASS" and not accept_unproven:
        hint = advise_unproven(document, again)
        if decision.verdict == "NOT SHOWN":
            return _refuse_unproven(hint)
        return NotShown(f"The exported student is not shown to pass: {document.reason}.", hint)
    return None


def _refuse(hint: str) -> GateFailed:
    """The error after a decision that is on the screen."""
    return GateFailed(f"Not good enough to ship (exit code {GateFailed.exit_code}).", hint)


def _refuse_unproven(hint: str) -> NotShown:
    """The error after a decision that is on the screen."""
    return NotShown(f"Not shown to be good enough (exit code {NotShown.exit_code}).", hint)


def _advice(document: ValidationDocument) -> str:
    """A hint where a check failed without a known cause."""
    student = document.student
    if student is not None and student.verdict == "FAIL":
        if document.data.train_images is None and student.teacher_accuracy is None:  # a bundle
            return "Train a better student on the machine of its run, then copy that bundle here."
        return (
            "Train longer (--epochs N), start from pretrained weights, or choose a larger student. "
            "The report lists what to try next, with commands."
        )
    return _CHECK_LIMITS


def refuse_undecided(
    decision: Decision, accept_unproven: bool, document: ValidationDocument | None = None, again: str = ""
) -> None:
    """End with the gate's exit code unless there is a model to ship.

    Args:
        decision: on the bundle.
        accept_unproven: NOT SHOWN is accepted.
        document: that it was decided by, for the hint.
        again: see `refuse_failed`.

    Raises:
        GateFailed: nothing is to be shipped.
        NotShown: a model is the candidate, but not shown to pass; not raised with `accept_unproven`.
    """
    if decision.verdict == "NOT SHOWN" and not accept_unproven:
        hint = f"Validate on more images, or accept it: {again} --accept-unproven".replace("  ", " ")
        if document is not None:
            hint = _advise_undecided(decision, document, again)
        raise _refuse_unproven(hint)
    if decision.verdict == "FAIL" or (decision.verdict == "NOT JUDGED" and decision.model is None):
        raise _refuse(_CHECK_LIMITS if document is None else _advice(document))


def _advise_undecided(decision: Decision, document: ValidationDocument, again: str) -> str:
    """A hint where the candidate is not shown to pass: images, or a benchmark on the device."""
    if any(check.verdict == "NOT SHOWN" for _, check in iter_checks(document)):
        return advise_unproven(document, again)
    return f"Run on {decision.device or 'the device'}: dskd-compress benchmark BUNDLE"


def refuse_run(
    validation: ValidationDocument | None,
    benchmark: BenchmarkDocument | None,
    accept_unproven: bool,
    again: str = "",
) -> None:
    """End with the worst exit code of a run's stages; None: the stage was not part of the run.

    A budget that was judged on another device than the bundle's target decides nothing: it is not shown to be met.

    Args:
        validation: of the run.
        benchmark: of the run.
        accept_unproven: NOT SHOWN is accepted.
        again: see `refuse_failed`.

    Raises:
        GateFailed: a stage failed.
        NotShown: none failed, and one is not shown to pass; not raised with `accept_unproven`.
    """
    decision = decide(validation, benchmark)
    failed = None if validation is None else _find_failed(validation, decision, accept_unproven, again)
    slow: GateFailed | NotShown | None = None
    if benchmark is not None:
        here = select_measured_on(benchmark, None if validation is None else validation.target)
        if here is not None:
            slow = find_slow(here.judgements, [])
            if isinstance(slow, GateFailed) and decision.verdict == "FAIL":
                slow = _refuse(slow.hint or _CHECK_LIMITS)
        elif benchmark.judgements and validation is not None and decision.verdict == "NOT SHOWN":
            slow = _refuse_unproven(_advise_undecided(decision, validation, again))
    raise_worst([failed, None if accept_unproven and isinstance(slow, NotShown) else slow])


def advise_unproven(document: ValidationDocument, again: str = "") -> str:
    """Say what would show what is NOT SHOWN: more labelled images, acceptance, or larger limits.

    Args:
        document: of the validation.
        again: the command that repeats it; empty: flags alone.
    """
    command = f"{again} " if again else ""
    accept = f"accept it: {command}--accept-unproven"
    open_ = [(who, check) for who, check in iter_checks(document) if check.verdict == "NOT SHOWN"]
    if not open_:
        return f"Validate the whole bundle, or {accept}"
    if any(_is_doubt(check) for _, check in open_):
        return f"Correct the teacher's input and distil again, or {accept}"
    ways = []
    needed = unproven(check for _, check in open_).images_needed
    used = max((one.images for one in document.accuracy.values()), default=0)
    if needed is not None:
        unused = used < needed <= (document.data.val_images or 0)
        how = f": {command}--set validate.images=null" if unused else ""
        ways.append(f"validate on {needed:,} labelled images{how}")
    settings = [_loosen(who, check) for who, check in open_]
    if all(settings):
        ways.append(f"allow more: {command}{' '.join(f'--set {setting}' for setting in settings)}")
    text = ", or ".join([*ways, accept])
    return text[0].upper() + text[1:]


def _is_doubt(check: Check) -> bool:
    """Whether a check is within its limit, and open because the teacher is in doubt."""
    return check.name == AGAINST_TEACHER and check.bound is not None and check.bound <= check.limit


def _loosen(who: str, check: Check) -> str:
    """The setting with which a check that is NOT SHOWN would pass; empty: there is none."""
    if check.bound is None:
        return ""
    if check.name == AGAINST_TEACHER:
        return f"budget.student_drop={math.ceil(1000 * check.bound) / 1000:g}"
    precision = who.rpartition(":")[2]
    if check.name == "top-1 drop":
        return f"budget.{precision}.top1_drop={math.ceil(1000 * check.bound) / 1000:g}"
    if check.name == "top-1 agreement":
        return f"budget.{precision}.agreement={math.floor(1000 * check.bound) / 1000:g}"
    return ""


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
