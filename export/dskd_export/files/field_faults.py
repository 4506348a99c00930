"""Describe invalid values of a recipe or a document in plain words.

The model library reports its faults in its own words, which name its types and ours. What a person reads
is made here alone: each kind of fault has its sentence, and a kind without one gets a sentence that fits all.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

_LONGEST = 60

_WORDS: dict[str, str] = {
    **dict.fromkeys(("bool_parsing", "bool_type"), "must be true or false"),
    **dict.fromkeys(
        ("dataclass_type", "dict_type", "mapping_type", "model_attributes_type", "model_type"), "must be a mapping"
    ),
    **dict.fromkeys(("enum", "literal_error"), "must be {expected}"),
    "extra_forbidden": "unknown key",
    "finite_number": "must be a finite number",
    **dict.fromkeys(("float_parsing", "float_type"), "must be a number"),
    **dict.fromkeys(("frozen_set_type", "iterable_type", "list_type", "set_type", "tuple_type"), "must be a list"),
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    **dict.fromkeys(("int_from_float", "int_parsing", "int_type"), "must be a whole number"),
    "int_parsing_size": "must be a whole number with fewer digits",
    "json_type": "must be JSON text",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "missing": "is required",
    "multiple_of": "must be a multiple of {multiple_of}",
    "none_required": "must be null",
    "path_type": "must be a path",
    "recursion_loop": "must not contain itself",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "string_type": "must be text",
    "string_unicode": "must be Unicode text",
    "too_long": "must have at most {max_length} items",
    "too_short": "must have at least {min_length} items",
    "union_tag_invalid": "must be {expected_tags}",
    "union_tag_not_found": "needs the key {discriminator}",
}
_WITHOUT_VALUE = frozenset({"extra_forbidden", "missing", "recursion_loop", "union_tag_not_found"})
_ANY_KIND = "is not a valid value"


def expectation(details: Mapping[str, Any]) -> str:
    """What a value must be, after one entry of a validation error's `errors()`: `must be at least 1`."""
    kind, context = details["type"], details.get("ctx") or {}
    if kind in ("value_error", "assertion_error"):  # raised by a check of ours
        return str(context.get("error") or _ANY_KIND)
    if kind == "json_invalid":
        place = re.search(r"line \d+ column \d+", str(context.get("error")))
        return f"is not valid JSON ({place[0].replace(' column', ', column')})" if place else "is not valid JSON"
    numbers = {name: f"{value:g}" if isinstance(value, float) else value for name, value in context.items()}
    try:
        return _WORDS.get(kind, _ANY_KIND).format_map(numbers)
    except KeyError:  # another version of the library gives the kind no such number
        return _ANY_KIND


def describe_fault(details: Mapping[str, Any]) -> str:
    """What is wrong with a value, and the value: `must be at least 1, not 0`."""
    what, given = expectation(details), details.get("input")
    if details["type"] == "too_long":
        return f"{what}, not {details['ctx']['actual_length']}"
    by_itself = details["type"] in {*_WITHOUT_VALUE, "value_error", "assertion_error", "json_invalid"}
    return what if by_itself or "input" not in details else f"{what}, not {format_value(given)}"


def place_of(loc: Sequence[str | int]) -> str:
    """The dotted key of a fault in a document, without the library's names for the branches of a union."""
    parts = [str(part) for part in loc if isinstance(part, int) or not re.search(r"[\[\]()]", part)]
    while len(parts) > 1 and parts[-1] in ("str", "int", "float", "bool", "none"):
        parts.pop()
    return ".".join(parts)


def format_value(value: object) -> str:
    """A value for a message, as YAML and JSON write it; short whatever it is."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of more than 60 digits"
    writer = reprlib.Repr()
    writer.maxstring = writer.maxother = _LONGEST
    text = writer.repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
