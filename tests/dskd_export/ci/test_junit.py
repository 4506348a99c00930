from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from dskd_export.ci.junit import NOT_JUDGED, junit_xml
from dskd_export.documents.validation import ValidationDocument

INTERVAL = {"value": 0.9, "low": 0.8, "high": 0.95}


def check(name: str, verdict: str = "PASS", detail: str = "") -> dict[str, Any]:
    return {"name": name, "value": 0.5, "limit": 1.0, "comparison": "<=", "verdict": verdict, "detail": detail}


def make_document(
    judgements: list[dict[str, Any]], checks: list[dict[str, Any]] | None = None
) -> ValidationDocument:
    return ValidationDocument.model_validate(
        {
            "reference": "torch:cpu:fp32",
            "accuracy": {"torch:cpu:fp32": {"top1": INTERVAL, "images": 300}},
            "judgements": judgements,
            "preprocess": {"images": 1, "max_abs_pixel": 0, "max_abs_normalised": 0, "differing_pixels": 0},
            "checks": checks or [check("pixel difference")],
            "passed": False,
            "data": {
                "source": "x",
                "sha256": "0",
                "sha256_of": "content",
                "train_images": 1,
                "val_images": 1,
                "classes": [],
            },
            "bundle_sha256": "b" * 64,
            "provenance": {
                "command": "c",
                "started_at": "2026-03-14T09:00:07Z",
                "seconds": 12.5,
                "seed": 0,
                "commit": None,
                "versions": {},
                "device": {"device": "cpu", "cpu": "x", "cores": 2, "memory_gb": 1, "platform": "x"},
                "recipe_sha256": "0",
            },
        }
    )


def judgement(precision: str, verdict: str, **more: Any) -> dict[str, Any]:
    return {
        "runner": f"onnxruntime:cpu:{precision}",
        "precision": precision,
        "provider": "cpu",
        "verdict": verdict,
        "size_mb": 3.5,
        **more,
    }


DOCUMENT = make_document(
    [
        judgement("fp32", "PASS", native=True, checks=[check("cosine"), check("KL")]),
        judgement(
            "int8",
            "FAIL",
            native=False,
            computed_in="fp32",
            native_reason="computed in fp32 on cpu: 0 of 3 run in int8",
            checks=[
                check("top-1 drop", "NOT SHOWN", "0 of 256 images lost; 390 images would show it"),
                check("top-1 agreement", "FAIL"),
                check("worst class drop", "NOT JUDGED", "no class has 10 images; the largest has 3"),
            ],
            causes=["model.int8.onnx: the logits are 10 times the reference's"],
        ),
        judgement("bf16", "NOT RUN", reason="ONNX Runtime cannot run model.bf16.onnx on cpu"),
    ]
)


@pytest.fixture
def root() -> ElementTree.Element:
    return ElementTree.fromstring(junit_xml(DOCUMENT))


def test_one_suite_a_model_and_one_case_a_check(root: ElementTree.Element) -> None:
    assert root.tag == "testsuites"
    suites = {suite.get("name"): suite for suite in root}
    models = ["onnxruntime:cpu:fp32", "onnxruntime:cpu:int8", "onnxruntime:cpu:bf16"]
    assert list(suites) == ["student", "bundle", *models]
    names = {name: [case.get("name") for case in suite.iter("testcase")] for name, suite in suites.items()}
    assert names["onnxruntime:cpu:fp32"] == ["cosine", "KL"]
    assert names["onnxruntime:cpu:int8"] == ["top-1 drop", "top-1 agreement", "worst class drop"]
    assert names["onnxruntime:cpu:bf16"] == ["runs"]
    for suite in root:
        assert suite.get("tests") == str(len(list(suite.iter("testcase"))))
        assert suite.get("failures") == str(len(list(suite.iter("failure"))))
        assert suite.get("skipped") == str(len(list(suite.iter("skipped"))))
        assert suite.get("timestamp") == "2026-03-14T09:00:07"
    for field, expected in {
        "tests": "8",
        "failures": "2",
        "skipped": "3",
        "errors": "0",
        "time": "12.500",
    }.items():
        assert root.get(field) == expected
    classes = {case.get("classname") for case in root.iter("testcase")}
    assert len(classes) == 5
    cases = [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]
    assert len(set(cases)) == len(cases)


def test_a_failure_says_what_and_why(root: ElementTree.Element) -> None:
    shown, failed = root.iter("failure")
    assert (shown.get("type"), failed.get("type")) == ("NOT SHOWN", "FAIL")
    assert "390 images would show it" in str(shown.get("message"))
    assert "10 times the reference's" in str(failed.text)


def test_what_is_not_shown_is_skipped_where_that_is_accepted() -> None:
    root = ElementTree.fromstring(junit_xml(DOCUMENT, accept_unproven=True))
    assert [one.get("type") for one in root.iter("failure")] == ["FAIL"]
    messages = [str(one.get("message")) for one in root.iter("skipped")]
    assert messages[1].startswith("NOT SHOWN: top-1 drop is 0.5, the limit is <= 1: 0 of 256 images lost")


def test_the_student_is_a_suite_of_its_own() -> None:
    student = {"verdict": "FAIL", "reason": "33 points below", "checks": [check("drop vs teacher", "FAIL")]}
    document = ValidationDocument.model_validate({**DOCUMENT.model_dump(), "student": student})
    suite = ElementTree.fromstring(junit_xml(document))[0]
    assert (suite.get("name"), suite.get("failures")) == ("student", "1")
    assert [one.get("type") for one in suite.iter("failure")] == ["FAIL"]


def test_what_was_not_judged_or_not_run_is_skipped(root: ElementTree.Element) -> None:
    messages = [str(skipped.get("message")) for skipped in root.iter("skipped")]
    assert messages == [
        NOT_JUDGED,  # the student, as these are of a pair
        "no class has 10 images; the largest has 3",
        "ONNX Runtime cannot run model.bf16.onnx on cpu",
    ]


def test_facts_are_properties(root: ElementTree.Element) -> None:
    found = {
        suite.get("name"): {item.get("name"): item.get("value") for item in suite.iter("property")}
        for suite in root
    }
    assert found["bundle"]["bundle_sha256"] == "b" * 64
    assert (found["onnxruntime:cpu:int8"]["verdict"], found["onnxruntime:cpu:int8"]["computed_in"]) == (
        "FAIL",
        "fp32",
    )
    assert found["onnxruntime:cpu:int8"]["native"] == "false: computed in fp32 on cpu: 0 of 3 run in int8"
    assert found["onnxruntime:cpu:fp32"]["native"] == "true"
    assert found["onnxruntime:cpu:fp32"]["size_mb"] == "3.500"


ODD = "a\x00b\x1b[31m<&>\"' \ud800 \uffff ü \U0001f600 ]]>"


def test_any_class_name_gives_valid_xml() -> None:
    evil = make_document(
        [
            judgement(
                "int8", "FAIL", checks=[check("worst class drop", "FAIL", f"class {ODD!r}: {ODD}")], causes=[ODD]
            )
        ]
    )
    text = junit_xml(evil)
    assert text.startswith("<?xml version='1.0' encoding='utf-8'?>") or text.startswith("<?xml version=")
    root = ElementTree.fromstring(text.encode("utf-8"))
    (failure,) = root.iter("failure")
    for part in ("<&>", "\"'", "ü", "\U0001f600", "]]>"):
        assert part in str(failure.text)
