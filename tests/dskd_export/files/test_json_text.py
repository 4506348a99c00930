from __future__ import annotations

import contextlib
import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from dskd_export.files.json_text import InvalidJson, adapt_json, parse_json, validate_json


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    text: str = ""
    whole: int = 0
    share: float = Field(default=0.5, ge=0, le=1)
    yes: bool = True
    some: list[int] = Field(default_factory=list, max_length=2)
    kind: Literal["a", "b"] = "a"
    anything: dict[str, Any] = Field(default_factory=dict)


def why(data: bytes | str) -> str:
    with pytest.raises(InvalidJson) as caught:
        validate_json(data if isinstance(data, bytes) else data.encode(), Part)
    assert str(caught.value).isprintable()
    assert "pydantic" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"text": 1}', "text: must be text, not 1"),
        ('{"whole": 1.5}', "whole: must be a whole number, not 1.5"),
        ('{"whole": "x"}', "whole: must be a whole number, not 'x'"),
        ('{"share": "x"}', "share: must be a number, not 'x'"),
        ('{"share": -1}', "share: must be at least 0, not -1"),
        ('{"share": 2}', "share: must be at most 1, not 2"),
        ('{"share": NaN}', "share: must be a finite number, not nan"),
        ('{"share": -Infinity}', "share: must be a finite number, not -inf"),
        ('{"share": 1e320}', "share: must be a finite number, not inf"),
        ('{"yes": "perhaps"}', "yes: must be true or false, not 'perhaps'"),
        ('{"some": 3}', "some: must be a list, not 3"),
        ('{"some": [1, 2, 3]}', "some: must have at most 2 items, not 3"),
        ('{"kind": "c"}', "kind: must be 'a' or 'b', not 'c'"),
        ('{"anything": []}', "anything: must be a mapping, not []"),
        ('{"other": 1}', "other: unknown key"),
        ("[]", "document: must be a mapping, not []"),
        ('{"anything": {"x": NaN}}', "not valid JSON: NaN is not a JSON number"),
        ('{"anything": {"x": 1e320}}', "not valid JSON: a number is too large"),
        ('{"whole": 1' + "0" * 320 + "}", "not valid JSON: an integer has 321 digits"),
        ('{"text": "a", "text": "b"}', "not valid JSON: a key appears twice in one object"),
        ('{"text": "\\ud800"}', "not valid JSON: a text holds half a character"),
        ('{"anything": ' + "[" * 500 + "]" * 500 + "}", "its JSON is nested too deeply"),
        ('{"text":', "not valid JSON at line 1, column 9"),
        ("", "not valid JSON at line 1, column 1"),
    ],
)
def test_what_is_refused_and_why(text: str, what: str) -> None:
    assert why(text) == what


def test_half_a_character_at_the_end() -> None:
    assert why('{"text": "ü'.encode()[:-1]) == "not valid JSON: byte 11 is not UTF-8"


def test_many_values_are_counted_before_any_is_parsed() -> None:
    assert why(b"[" + b"{}," * 3_000_000) == "its JSON has more than 250,000 values"


def test_what_is_no_single_model() -> None:
    numbers = TypeAdapter(list[int])
    assert adapt_json(b"[1, 2]", numbers) == [1, 2]
    with pytest.raises(InvalidJson, match=r"^1: must be a whole number, not 'x'$"):
        adapt_json(b'[1, "x"]', numbers)


@given(st.binary(max_size=60) | st.text(st.sampled_from('{}[]",:0e9-\\u dNa'), max_size=30).map(str.encode))
def test_any_bytes_are_json_or_refused(data: bytes) -> None:
    with contextlib.suppress(InvalidJson):
        value = parse_json(data)
        assert parse_json(json.dumps(value).encode()) == value
