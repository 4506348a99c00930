"""From checks to a verdict and its reason, for a model, for the student and for a whole validation.

| verdict    | when                                                                                |
|------------|-------------------------------------------------------------------------------------|
| PASS       | the end of every 95 % interval is within its limit                                   |
| NOT SHOWN  | every value is within its limit, an interval is not: more images or calls would do    |
| FAIL       | a value is beyond its limit                                                          |
| NOT JUDGED | nothing could be judged; a single check that could not be leaves the others to decide |
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from dskd_export.documents.validation import Check, Judgement, StudentJudgement, ValidationDocument, Verdict

_WORST_FIRST: tuple[Verdict, ...] = ("FAIL", "NOT SHOWN", "PASS")


def worst_of(verdicts: Iterable[str]) -> Verdict:
    """The verdict on all: FAIL beats NOT SHOWN, which beats PASS; NOT JUDGED where there is none of these."""
    found = set(verdicts)
    return next((one for one in _WORST_FIRST if one in found), "NOT JUDGED")


def verdict_of(checks: Iterable[Check]) -> Verdict:
    """The verdict of several checks together."""
    return worst_of(check.verdict for check in checks)


def reason_of(checks: Sequence[Check]) -> str:
    """The reason for the verdict of several checks, in one sentence without a full stop."""
    verdict = verdict_of(checks)
    if verdict == "FAIL":
        return "; ".join(describe_check(check) for check in checks if check.failed)
    if verdict == "NOT SHOWN":
        return unproven(checks).detail
    passed = sum(check.verdict == "PASS" for check in checks)
    text = f"{passed} {'check' if passed == 1 else 'checks'} passed"
    skipped = [check for check in checks if check.verdict == "NOT JUDGED"]
    if skipped:
        why = "; ".join(dict.fromkeys(check.detail for check in skipped))
        text += f", {len(skipped)} not judged ({', '.join(check.name for check in skipped)}: {why})"
    return text


def unproven(checks: Iterable[Check]) -> Check:
    """Of the checks that are NOT SHOWN, the one that needs the most images."""
    return max(
        (check for check in checks if check.verdict == "NOT SHOWN"),
        key=lambda check: check.images_needed or math.inf,
    )


def conclude(
    student: StudentJudgement | None, checks: Sequence[Check], judgements: Sequence[Judgement]
) -> tuple[Verdict, str]:
    """The verdict of a validation and its reason: the worst of the student, the bundle and the models.

    Args:
        student: against its teacher and the commonest class; None: it is not judged.
        checks: of the bundle itself.
        judgements: of its models; one that was not run says nothing.
    """
    parts: list[tuple[str, str, str]] = []
    if student is not None:
        parts.append(("student", student.verdict, student.reason))
    if checks:
        parts.append(("bundle", verdict_of(checks), reason_of(checks)))
    parts += [(one.runner, one.verdict, one.reason) for one in judgements]
    run = [one for one in judgements if one.verdict != "NOT RUN"]
    if not run:
        return "NOT JUDGED", "no model was run"
    verdict = worst_of(part for _, part, _ in parts)
    if verdict != "PASS":
        return verdict, "; ".join(f"{who}: {why}" for who, part, why in parts if part == verdict)
    models = "every model passes" if len(run) > 1 else f"{run[0].runner} passes"
    if student is None:
        return verdict, models
    return verdict, f"{student.reason}; {models}"


def format_limit(check: Check) -> str:
    """Format a limit; the share of the commonest class (`>`) is measured, so it is rounded as values are."""
    return (
        f"{check.comparison} {check.limit:.3g}"
        if check.comparison == ">"
        else f"{check.comparison} {check.limit:g}"
    )


def describe_check(check: Check) -> str:
    """Describe a check: what was found, and what the limit is."""
    if check.verdict == "NOT JUDGED":
        return f"{check.name} is not judged: {check.detail}"
    value = "not measurable" if check.value is None else f"{check.value:.3g}"
    bound = "" if check.bound is None else f" (95 % bound {check.bound:.3g})"
    found = f"{check.name} is {value}{bound}, the limit is {format_limit(check)}"
    return f"{found}: {check.detail}" if check.detail and check.verdict != "PASS" else found


def iter_checks(document: ValidationDocument) -> Iterator[tuple[str, Check]]:
    """Yield every check of a validation with what it is of: `student`, `bundle` or the name of a runner."""
    if document.student is not None:
        yield from (("student", check) for check in document.student.checks)
    yield from (("bundle", check) for check in document.checks)
    for judgement in document.judgements:
        yield from ((judgement.runner, check) for check in judgement.checks)


def list_causes(document: ValidationDocument) -> list[str]:
    """List what the failures of a validation look like, each once."""
    return list(dict.fromkeys([*document.causes, *(text for one in document.judgements for text in one.causes)]))
