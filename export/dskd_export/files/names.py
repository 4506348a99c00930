"""Convert file names that are not UTF-8 or not ASCII for people and shells; check class names."""

from __future__ import annotations

import os
import shlex
import unicodedata
from collections.abc import Iterable, Sequence

from dskd_export.errors import DataError


def is_utf8(name: str) -> bool:
    """Whether a name can be written to JSON, hashes and text files."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def make_printable(name: str) -> str:
    r"""A file name as text: bytes that are not UTF-8 become `\xNN`; all other names stay as they are."""
    if is_utf8(name):
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def shell_bytes(path: str) -> str:
    r"""A path for bash and zsh: quoted as usual where it is ASCII, else as `$'caf\xc3\xa9'`."""
    if path.isascii():
        return shlex.quote(path)
    plain = set(range(32, 127)) - set(b"'\\")
    signs = (chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in os.fsencode(path))
    return f"$'{''.join(signs)}'"


def check_class_names(names: Sequence[str], where: str) -> None:
    """Refuse names that results cannot store, and names that look the same.

    Letter case separates classes, as the letters a and A.

    Args:
        names: in the order of the labels.
        where: the source, for the message.

    Raises:
        DataError: a name holds lone surrogates (bytes that are not UTF-8), or two names are equal, perhaps but
            for Unicode normalisation or white space.
    """
    first: dict[str, str] = {}
    for name in names:
        if not is_utf8(name):
            raise DataError(f"{where}: the class name {name!a} is not valid Unicode.", "Rename the class.")
        looks = " ".join(unicodedata.normalize("NFC", name).split())
        if looks not in first:
            first[looks] = name
            continue
        what = (
            "named " + _show(name) if first[looks] == name else f"alike: {describe_difference(first[looks], name)}"
        )
        raise DataError(f"{where}: two classes are {what}.", "Merge them, or give each class its own name.")


def find_look_alikes(names: Iterable[str], others: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of different names that a person may take for the same, one of `names`, one of `others`."""
    by_looks = {_fold(name): name for name in others}
    pairs = [(name, by_looks.get(_fold(name))) for name in names]
    return [(name, other) for name, other in pairs if other is not None and other != name]


def describe_difference(name: str, other: str) -> str:
    r"""Two names in ASCII, `'caf\xe9' (composed) and 'cafe\u0301' (decomposed)`."""
    if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other):
        return f"{name!a}{_form(name)} and {other!a}{_form(other)}"
    return f"{name!a} and {other!a}"


def _form(name: str) -> str:
    if unicodedata.is_normalized("NFC", name):
        return " (composed)"
    return " (decomposed)" if unicodedata.is_normalized("NFD", name) else ""


def _fold(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _show(name: str) -> str:
    return f"'{name}'" if name.isprintable() and len(name) <= 60 else ascii(name[:60])
