"""Faults of documents in our own words: whatever a field is given, and every kind that the library knows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic_core.core_schema import ErrorType

from dskd_export.documents.base import Accuracy, Provenance, StageRecord, read_document
from dskd_export.errors import BundleError, DataError
from dskd_export.files.field_faults import describe_fault, expectation, format_value, place_of
from dskd_export.report.load import load_run
from dskd_export.spec import ModelSpec

FOREIGN = re.compile(
    r"pydantic|Input should|should be|Field required|valid (string|integer|dict)|instance of", re.I
)
LONG = "x" * 10_000


@pytest.mark.parametrize("kind", sorted({*get_args(ErrorType), "a_kind_of_tomorrow"}))
def test_every_kind_has_words_with_and_without_its_numbers(kind: str) -> None:
    bare = {"type": kind, "loc": ("a",), "msg": "Input should be the library's own", "input": LONG}
    for details in (bare, {**bare, "ctx": {}}):
        for text in (expectation(details), *([describe_fault(details)] if kind != "too_long" else [])):
            assert text
            assert not FOREIGN.search(text)
            assert "{" not in text
            assert len(text) < 160


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), (10**400, "a number of more than 60 digits"), ("a\nb", r"'a\nb'")],
)
def test_values_are_shown_as_they_are_written(value: object, text: str) -> None:
    assert format_value(value) == text
    assert all(len(format_value(long)) <= 60 for long in (LONG, [LONG] * 50, {LONG: LONG}, [[[[[[[1]]]]]]]))


def test_places_carry_no_branch_of_a_union() -> None:
    assert place_of(("a", "dict[str,union[str,int]]", "b", 0, "int")) == "a.b.0"
    assert place_of(("int",)) == "int"


@pytest.mark.parametrize("value", [None, True, -1, 2.5, "x", [], {}, {"x": 1}, [[1]]])
@pytest.mark.parametrize("kind", [Accuracy, Provenance, StageRecord])
def test_no_document_is_refused_in_another_librarys_words(kind: type, value: object, tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    written: list[object] = [value, *({name: value} for name in kind.model_fields)]  # type: ignore[attr-defined]
    for content in written:
        path.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(DataError) as caught:
            read_document(path, kind)
        assert not FOREIGN.search(caught.value.message), caught.value.message
        with pytest.raises(BundleError) as refused:
            ModelSpec.from_json(path.read_text())
        assert not FOREIGN.search(refused.value.message), refused.value.message


def test_text_that_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "distill.json"
    path.write_text('{"a": ', encoding="utf-8")
    with pytest.raises(DataError, match=r"not a valid Accuracy: not valid JSON at line 1, column \d+"):
        read_document(path, Accuracy)
    (tmp_path / "recipe.yaml").write_text("{}", encoding="utf-8")
    (tmp_path / "train.jsonl").write_text('{"kind": "step", "step": "x"}\n', encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_run(tmp_path)
    assert not FOREIGN.search(caught.value.message), caught.value.message
