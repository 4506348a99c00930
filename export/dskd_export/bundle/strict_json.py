"""JSON of which nothing is left to the reader's taste: the JSON that a stranger may hand in."""

from __future__ import annotations

import json
import math
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dskd_export.errors import BundleError
from dskd_export.field_faults import describe_fault, place_of

_LONGEST_INTEGER = 20  # digits; 2^64 has that many, and Python's own parser needs quadratic time
_LONGEST_LINE = 300

ModelT = TypeVar("ModelT", bound=BaseModel)


def canonical_json(value: Any) -> str:
    """The one text of a JSON value: keys sorted, two spaces of indentation, a line end.

    Raises:
        ValueError: NaN, infinity, or what JSON cannot say.
    """
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def load_json(data: bytes, where: str) -> Any:
    """Parse JSON; a key that stands twice, NaN, infinity, endless integers and endless depth are refused.

    Args:
        data: UTF-8; the caller has bounded its length.
        where: the place, for the message.

    Raises:
        BundleError: it is no such JSON; one line says why.
    """
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_integer,
        )
    except RecursionError as error:
        raise BundleError(f"{where}: its JSON is nested too deeply.", "Do not use this bundle.") from error
    except ValueError as error:
        raise BundleError(
            f"{where}: not valid JSON: {one_line(str(error))}.", "Copy or export it again."
        ) from error


def load_document(data: bytes, kind: type[ModelT], where: str) -> ModelT:
    """Parse JSON as `load_json` does, and hold it against a document's type.

    Raises:
        BundleError: it is not a document of this kind; one line names the first field that is wrong.
    """
    load_json(data, where)
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = place_of(first["loc"]) or "document"
        raise BundleError(
            f"{where}: {one_line(field)}: {one_line(describe_fault(first))}.", "Export it again."
        ) from error


def one_line(text: str) -> str:
    """A stranger's text for a message: one line, no control characters, not endless."""
    shown = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text[:_LONGEST_LINE])
    return shown if len(text) <= _LONGEST_LINE else f"{shown}..."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


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
