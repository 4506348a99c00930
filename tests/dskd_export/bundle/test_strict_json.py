from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from dskd_export.bundle.strict_json import canonical_json, load_document, load_json
from dskd_export.errors import BundleError
from dskd_export.files.json_text import one_line

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**19), 10**19)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
).filter(lambda value: "\\ud" not in json.dumps(value))


@settings(deadline=None)
@given(VALUES)
def test_what_is_written_is_read(value: object) -> None:
    text = canonical_json(value)
    assert load_json(text.encode(), "x") == json.loads(text) == value
    assert canonical_json(load_json(text.encode(), "x")) == text


def why_refused(data: bytes) -> str:
    try:
        load_json(data, "x")
    except BundleError as error:
        return str(error)
    return ""


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_an_error_of_one_line(data: bytes) -> None:
    assert why_refused(data).isprintable()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1, "a": 2}', "twice"),
        (b"NaN", r"\bNaN\b"),
        (b"[-Infinity]", "-Infinity"),
        (b"1e999", "too large"),
        (b"9" * 1_000_000, "1,000,000 digits"),
        (b"-" + b"9" * 21, "21 digits"),
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 100_000, "nested"),
        (b"\xff", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"{} {}", "not valid JSON"),
    ],
)
def test_what_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        load_json(data, "x")
    assert str(caught.value).isprintable()


class Thing(BaseModel):
    size: int


def test_a_document() -> None:
    assert load_document(b'{"size": 3}', Thing, "x") == Thing(size=3)
    with pytest.raises(BundleError, match=r"x: size: is required"):
        load_document(b"{}", Thing, "x")
    with pytest.raises(BundleError, match=r"x: document: "):
        load_document(b"[]", Thing, "x")
    with pytest.raises(BundleError, match="twice"):
        load_document(b'{"size": 3, "size": 4}', Thing, "x")


def test_numbers_that_json_has_not_are_not_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json([float("inf")])


def test_one_line() -> None:
    assert one_line("plain ünd") == "plain ünd"
    assert one_line("a\nb\x1b[2J\u2028\u202e\ud800") == "a\\nb\\x1b[2J\\u2028\\u202e\\ud800"
    assert one_line("x" * 1000) == "x" * 300 + "..."
