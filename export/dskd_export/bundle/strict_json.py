"""JSON of a bundle: canonical where it is written, strict where it is read."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel

from dskd_export.errors import BundleError
from dskd_export.files.json_text import InvalidJson, one_line, parse_json, validate_json

__all__ = ["canonical_json", "load_document", "load_json", "one_line"]

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
        return parse_json(data)
    except InvalidJson as error:
        raise BundleError(f"{where}: {error}.", "Copy or export it again.") from error


def load_document(data: bytes, kind: type[ModelT], where: str) -> ModelT:
    """Parse JSON as `load_json` does, and hold it against a document's type.

    Raises:
        BundleError: it is not a document of this kind; one line names the first field that is wrong.
    """
    try:
        return validate_json(data, kind)
    except InvalidJson as error:
        raise BundleError(f"{where}: {error}.", "Copy or export it again.") from error
