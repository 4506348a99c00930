"""Verdicts as JUnit XML, which CI systems show test by test.

The form that Jenkins' xUnit schema and the readers of GitHub and GitLab share: `testsuites` of
`testsuite` with `properties` and `testcase`, and in a case `failure` or `skipped`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from xml.etree import ElementTree

from dskd_export.documents.validation import Check, ValidationDocument
from dskd_export.validation.verdicts import describe_check

# Characters that XML 1.0 cannot hold, escaped or not.
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


NOT_JUDGED = "not judged: a pair was compared"


def junit_xml(document: ValidationDocument, accept_unproven: bool = False) -> str:
    """Format a validation: suites of the student, the bundle and each model on its provider, one case per check.

    A check that is NOT SHOWN is a `failure` of that type, as the command then ends with 6. With `accept_unproven`,
    which makes that 0, it is `skipped`, and its message begins with NOT SHOWN. A check that could not be judged,
    and a model that could not be run, is `skipped`: never a pass. So is the student where a pair was compared.

    Args:
        document: the validation.
        accept_unproven: as the command was started.
    """
    root = ElementTree.Element("testsuites", {"name": "dskd-compress validate"})
    started = document.provenance.started_at
    if document.student is not None:
        facts = {"verdict": document.student.verdict, "reason": document.student.reason}
        _add_checks(root, started, "student", document.student.checks, (), facts, accept_unproven)
    else:
        add_case(add_suite(root, "student", started), "student", "verdict", skipped=NOT_JUDGED)
    facts = {"bundle_sha256": document.bundle_sha256, "reference": document.reference}
    facts |= {"verdict": document.verdict, "reason": document.reason}
    _add_checks(root, started, "bundle", document.checks, document.causes, facts, accept_unproven)
    for judgement in document.judgements:
        facts = {"verdict": judgement.verdict, "reference": document.reference}
        if judgement.computed_in is not None:
            facts["computed_in"] = judgement.computed_in
        if judgement.native is not None:
            facts["native"] = f"{str(judgement.native).lower()}: {judgement.native_reason}".rstrip(": ")
        if judgement.size_mb is not None:
            facts["size_mb"] = f"{judgement.size_mb:.3f}"
        not_run = judgement.reason if judgement.verdict == "NOT RUN" else None
        checks, causes = judgement.checks, judgement.causes
        _add_checks(root, started, judgement.runner, checks, causes, facts, accept_unproven, not_run)
    return format_suites(root, document.provenance.seconds)


def add_suite(
    root: ElementTree.Element, name: str, started_at: str, facts: Mapping[str, str] | None = None
) -> ElementTree.Element:
    """Add a suite with properties, started at an ISO 8601 time in UTC; `format_suites` counts its cases."""
    made = ElementTree.SubElement(
        root, "testsuite", {"name": _text(name), "time": "0", "timestamp": started_at.removesuffix("Z")}
    )
    properties = ElementTree.SubElement(made, "properties")
    for key, value in (facts or {}).items():
        ElementTree.SubElement(properties, "property", {"name": key, "value": _text(value)})
    return made


def add_case(
    within: ElementTree.Element,
    class_name: str,
    name: str,
    *,
    failure: str = "",
    kind: str = "FAIL",
    more: Iterable[str] = (),
    skipped: str = "",
) -> None:
    """Add a case to a suite: failed for a reason, else skipped for one, else passed; `more` are further lines."""
    made = ElementTree.SubElement(
        within, "testcase", {"classname": _text(class_name), "name": _text(name), "time": "0"}
    )
    if failure:
        element = ElementTree.SubElement(made, "failure", {"type": kind, "message": _text(failure)})
        element.text = _text("\n".join([failure, *more]))
    elif skipped:
        ElementTree.SubElement(made, "skipped", {"message": _text(skipped)})


def format_suites(root: ElementTree.Element, seconds: float) -> str:
    """Count the cases of every suite and of all together, and format the file."""
    paths = {"tests": "testcase", "failures": "testcase/failure", "skipped": "testcase/skipped"}
    for one in (*root, root):
        prefix = "testsuite/" if one is root else ""
        for name, path in paths.items():
            one.set(name, str(len(one.findall(prefix + path))))
        one.set("errors", "0")
    root.set("time", f"{seconds:.3f}")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def add_check(
    suite: ElementTree.Element, where: str, check: Check, counts: bool, why_not: str = "", more: Iterable[str] = ()
) -> None:
    """Add a check as a case.

    Args:
        suite: of the model.
        where: the case's class.
        check: whose value was not measured is skipped.
        counts: a missed check is a failure; else it is skipped.
        why_not: appended to the message of a missed check that does not count.
        more: further lines of a failure.
    """
    words = f"NOT SHOWN: {describe_check(check)}" if check.verdict == "NOT SHOWN" else describe_check(check)
    missed = check.verdict in ("FAIL", "NOT SHOWN")
    skipped = check.detail if check.verdict == "NOT JUDGED" else f"{words}{why_not}" if missed else ""
    failure = words if missed and counts else ""
    add_case(suite, where, check.name, failure=failure, kind=check.verdict, more=more, skipped=skipped)


def _add_checks(
    root: ElementTree.Element,
    started_at: str,
    name: str,
    checks: Sequence[Check],
    causes: Sequence[str],
    facts: Mapping[str, str],
    accept_unproven: bool,
    not_run: str | None = None,
) -> None:
    made = add_suite(root, name, started_at, facts)
    where = f"validate.{name.replace('.', '_').replace(':', '.')}"  # a dot opens a folder in Jenkins' tree
    for check in checks:
        add_check(made, where, check, check.failed or not accept_unproven, more=causes if check.failed else ())
    if not_run is not None:
        add_case(made, where, "runs", skipped=not_run)


def _text(value: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", value)
