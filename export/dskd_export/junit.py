"""A validation as JUnit XML, which CI systems show test by test.

The form that Jenkins' xUnit schema and the readers of GitHub and GitLab share: `testsuites` of
`testsuite` with `properties` and `testcase`, and in a case `failure` or `skipped`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from xml.etree import ElementTree

from dskd_export.documents import Check, ValidationDocument
from dskd_export.gate import headline, sentence

# All that XML 1.0 cannot hold, escaped or not.
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(document: ValidationDocument) -> str:
    """One suite for the bundle and one for each model on its provider, one case for each check.

    A check that could not be judged, and a model that could not be run, is `skipped`: never a pass.
    """
    root = ElementTree.Element("testsuites", {"name": "dskd-compress validate"})
    facts = {"bundle_sha256": document.bundle_sha256, "reference": document.reference}
    _suite(root, document, "bundle", document.checks, document.causes, facts)
    for judgement in document.judgements:
        facts = {"verdict": headline(judgement), "reference": document.reference}
        if judgement.native is not None:
            facts["native"] = f"{str(judgement.native).lower()}: {judgement.native_reason}".rstrip(": ")
        if judgement.size_mb is not None:
            facts["size_mb"] = f"{judgement.size_mb:.3f}"
        not_run = judgement.reason if judgement.verdict == "NOT RUN" else None
        _suite(root, document, judgement.runner, judgement.checks, judgement.causes, facts, not_run)
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    root.set("time", f"{document.provenance.seconds:.3f}")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(
    root: ElementTree.Element,
    document: ValidationDocument,
    name: str,
    checks: Sequence[Check],
    causes: Iterable[str],
    facts: Mapping[str, str],
    not_run: str | None = None,
) -> None:
    failures = sum(check.failed for check in checks)
    skipped = sum(check.verdict == "NOT JUDGED" for check in checks) + (not_run is not None)
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        {
            "name": _text(name),
            "tests": str(len(checks) + (not_run is not None)),
            "failures": str(failures),
            "errors": "0",
            "skipped": str(skipped),
            "time": "0",
            "timestamp": document.provenance.started_at.removesuffix("Z"),
        },
    )
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in facts.items():
        ElementTree.SubElement(properties, "property", {"name": key, "value": _text(value)})
    where = f"validate.{name.replace('.', '_').replace(':', '.')}"  # a dot opens a folder in Jenkins' tree
    for check in checks:
        case = _case(suite, where, check.name)
        if check.failed:
            failure = ElementTree.SubElement(
                case, "failure", {"type": check.verdict, "message": _text(sentence(check))}
            )
            failure.text = _text("\n".join([sentence(check), *causes]))
        elif check.verdict == "NOT JUDGED":
            ElementTree.SubElement(case, "skipped", {"message": _text(check.detail)})
    if not_run is not None:
        ElementTree.SubElement(_case(suite, where, "runs"), "skipped", {"message": _text(not_run)})


def _case(suite: ElementTree.Element, where: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", {"classname": _text(where), "name": _text(name), "time": "0"})


def _text(value: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", value)
