"""JSON of a bundle: canonical where it is written, strict where it is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import BaseModel

from dskd_export.errors import BundleError
from dskd_export.files.json_text import InvalidJson, parse_json, validate_json

ModelT = TypeVar("ModelT", bound=BaseModel)


def canonical_json(value: Any) -> str:
    """Serialize JSON canonically: keys sorted, two spaces of indentation, a line end.

    Raises:
        ValueError: NaN, infinity, or what JSON cannot say.
    """
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def load_json(data: bytes, where: str) -> Any:
    """Parse JSON; refuse duplicate keys, NaN, infinity, huge integers and deep nesting.

    Args:
        data: UTF-8; the caller has bounded its length.
        where: the place, for the message.

    Raises:
        BundleError: it is no such JSON; one line says why.
    """
    with _refuse(where):
        return parse_json(data)


def load_document(data: bytes, kind: type[ModelT], where: str) -> ModelT:
    """Parse a document of a type.

    Raises:
        BundleError: it is not a document of this kind; one line names the first field that is wrong.
    """
    with _refuse(where):
        return validate_json(data, kind)


@contextmanager
def _refuse(where: str) -> Iterator[None]:
    try:
        yield
    except InvalidJson as error:
        raise BundleError(f"{where}: {error}.", "Copy or export it again.") from error
