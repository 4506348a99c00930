"""Make names and texts safe for folders, URLs, image tags, C++ and protobuf strings."""

from __future__ import annotations

import re

from dskd_export.errors import UsageError

# Triton takes the name of a model from its folder, and puts it into URLs.
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PLAIN = frozenset(range(0x20, 0x7F)) - frozenset(b'"\\?')


def model_name_from(architecture: str, precision: str) -> str:
    """Name a model in a precision: letters, digits, `_` and `-`, at most 64 of them."""
    tail = f"_{precision}"
    stem = re.sub(r"[^A-Za-z0-9]+", "_", architecture).strip("_") or "model"
    return stem[: 64 - len(tail)] + tail


def check_model_name(name: str) -> str:
    """Check a model name.

    Raises:
        UsageError: it is more than letters, digits, `_` and `-`, or too long.
    """
    if not _MODEL_NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' is not a valid model name.",
            "Use letters, digits, _ and -, beginning with a letter or a digit; at most 64 of them.",
        )
    return name


def quote_literal(text: str) -> str:
    r"""Quote text as a string literal of C++ and of protobuf's text format.

    What is more than plain ASCII stands as octal escapes of its UTF-8 bytes, always three digits, so that nothing
    behind it can be taken for a part of the escape; `?` too, which begins the trigraphs of older compilers.
    """
    return '"' + "".join(chr(byte) if byte in _PLAIN else f"\\{byte:03o}" for byte in text.encode()) + '"'
