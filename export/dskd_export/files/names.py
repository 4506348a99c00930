"""File names that are not UTF-8 or not ASCII, as text for people, results and shells."""

from __future__ import annotations

import os
import shlex


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
