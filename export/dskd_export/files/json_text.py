"""Parse untrusted JSON strictly, check it against a model, report faults in our own words; digest plain values.

What readers of JSON take differently is refused: NaN and infinity, numbers beyond the range of a float,
endless integers, a duplicate key, endless depth.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json

from dskd_export.files.field_faults import describe_fault, place_of

_LONGEST_INTEGER = 20  # digits; 2^64 has that many, and Python's own parser needs quadratic time
_LONGEST_LINE = 300
_MOST_VALUES = 250_000  # a document of ours has thousands; each value that is wrong becomes an error in memory

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)


class InvalidJson(ValueError):
    """Text that is not the JSON that was expected; the message is one clause on one line, without a full stop."""


def parse_json(data: bytes) -> Any:
    """Parse JSON.

    Args:
        data: UTF-8; the caller has bounded its length.

    Raises:
        InvalidJson: it is not JSON, or JSON that readers take differently.
    """
    _check_amount(data)
    refused = ""
    try:
        from_json(data)  # for its limit of depth, which does not depend on Python's stack
    except ValueError as error:
        refused = str(error)
    if "recursion limit" in refused:
        raise InvalidJson("its JSON is nested too deeply")
    try:
        value = _DECODER.decode(data.decode("utf-8"))
    except RecursionError as error:
        raise InvalidJson("its JSON is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise InvalidJson(f"not valid JSON: byte {error.start + 1:,} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise InvalidJson(f"not valid JSON at line {error.lineno}, column {error.colno}") from error
    except ValueError as error:
        raise InvalidJson(f"not valid JSON: {error}") from error
    if refused:  # Python's parser takes "\\ud800", which cannot be written anywhere
        raise InvalidJson("not valid JSON: a text holds half a character")
    return value


def validate_json(data: bytes, kind: type[ModelT]) -> ModelT:
    """Parse JSON as `parse_json` does, and make a model of it.

    Raises:
        InvalidJson: as `parse_json`, or it does not fit; names the first field that is wrong.
    """
    return adapt_json(data, TypeAdapter(kind))


def adapt_json(data: bytes, adapter: TypeAdapter[T]) -> T:
    """Parse JSON as `validate_json` does, for any type.

    Raises:
        InvalidJson: as `validate_json`.
    """
    _check_amount(data)
    try:
        made = adapter.validate_json(data)
    except ValidationError as error:
        if error.errors(include_url=False, include_input=False)[0]["type"] != "finite_number":
            parse_json(data)  # what is wrong with the text comes first, but for NaN: there the field says more
        raise InvalidJson(first_fault(error)) from error
    parse_json(data)
    return made


def first_fault(error: ValidationError) -> str:
    """The first thing that a model refuses: the field, and what it must be."""
    first = error.errors(include_url=False)[0]
    # An unknown key may look like the library's names for the branches of a union.
    place = ".".join(map(str, first["loc"])) if first["type"] == "extra_forbidden" else place_of(first["loc"])
    return f"{one_line(place or 'document')}: {one_line(describe_fault(first))}"


def one_line(text: str) -> str:
    """Shorten untrusted text for a message: one line, no control characters, at most 300 characters."""
    shown = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text[:_LONGEST_LINE])
    return shown if len(text) <= _LONGEST_LINE else f"{shown}..."


def _check_amount(data: bytes) -> None:
    if data.count(b",") > _MOST_VALUES:
        raise InvalidJson(f"its JSON has more than {_MOST_VALUES:,} values")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _integer(text: str) -> int:
    digits = len(text.lstrip("-"))
    if digits > _LONGEST_INTEGER:
        raise ValueError(f"an integer has {digits:,} digits")
    return int(text)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_integer
)


def digest(value: object) -> str:
    """Hash the canonical JSON of a value with sha256; what JSON has no type for counts as its text.

    Raises:
        ValueError: it holds NaN or infinity.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
