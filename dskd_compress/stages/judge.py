"""What a validation means: shown as tables, and as a gate."""

from __future__ import annotations

from dskd_compress.console import Output
from dskd_export.documents import Interval, Judgement, ValidationDocument
from dskd_export.errors import GateFailed
from dskd_export.gate import causes_of, checks_of, failure_of, headline, smallest_that_passes


def print_validation(document: ValidationDocument, output: Output) -> None:
    """One row a model, one a check, and what a failure looks like."""
    output.table(
        f"Validation against {document.reference}",
        ["model", "top-1", "lost (95 %)", "agreement", "ECE", "MB", "verdict"],
        [_model(document, judgement) for judgement in document.judgements],
    )
    output.table(
        "Checks",
        ["model", "check", "value", "bound", "limit", "verdict"],
        [
            [
                runner,
                check.name,
                "not measurable" if check.value is None else f"{check.value:.3g}",
                "" if check.bound is None else f"{check.bound:.3g}",
                f"{check.comparison} {check.limit:g}",
                check.verdict,
            ]
            for runner, check in checks_of(document)
        ],
    )
    for cause in causes_of(document):
        output.warn(cause)
    for judgement in document.judgements:
        if judgement.verdict == "NOT RUN":
            output.warn(f"{judgement.runner} was not run: {judgement.reason}")
    smallest = smallest_that_passes(document.judgements)
    if smallest is not None and len(document.judgements) > 1:
        output.print(f"The smallest that passes: {smallest.runner}, {smallest.size_mb:.3g} MB")


def refuse_failed(document: ValidationDocument) -> None:
    """End with the gate's exit code where a check failed.

    Raises:
        GateFailed: names every check that failed, and the first cause.
    """
    if document.passed:
        return
    failures = [("bundle", failure_of(document.checks))]
    failures += [(one.runner, one.reason) for one in document.judgements if one.verdict == "FAIL"]
    crossed = "; ".join(f"{where}: {what}" for where, what in failures if what)
    causes = causes_of(document)
    if causes:
        hint = f"Likely cause: {causes[0]}."
    elif all(check.verdict == "NOT SHOWN" for _, check in checks_of(document) if check.failed):
        hint = "Validate on more images, or allow more in budget."
    else:
        hint = "Look at validation.json, or change the limits in validate and budget."
    raise GateFailed(f"The exported student does not pass: {crossed}.", hint)


def _model(document: ValidationDocument, judgement: Judgement) -> list[str]:
    paired, size = judgement.accuracy, judgement.size_mb
    accuracy = document.accuracy.get(judgement.runner)
    top1 = "" if accuracy is None else _percent(accuracy.top1)
    if paired is None:
        return [judgement.runner, top1, "", "", "", "" if size is None else f"{size:.2f}", headline(judgement)]
    drop = paired.top1_drop
    return [
        judgement.runner,
        top1,
        f"{100 * drop.value:+.2f} ({100 * drop.low:+.2f} to {100 * drop.high:+.2f})",
        f"{paired.agreement.value:.2%}",
        f"{paired.calibration_error:.3f}",
        "" if size is None else f"{size:.2f}",
        headline(judgement),
    ]


def _percent(share: Interval) -> str:
    return f"{share.value:.2%} ({share.low:.2%} to {share.high:.2%})"
