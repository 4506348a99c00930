"""Render templates, make names and texts safe, write files.

Nothing is escaped automatically: each place names the filter that quotes its text.
"""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from dskd_export.errors import BundleError, UsageError
from dskd_export.files.atomic import sha256_file
from dskd_export.files.json_text import one_line

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


def render_template(template: str, **values: object) -> bytes:
    """Render a template to UTF-8; `template` is its path below `templates/`."""
    return _environment().get_template(template).render(**values).encode()


def read_static(name: str) -> bytes:
    """Read a file below `templates/`."""
    return resources.files("dskd_export.deployment").joinpath("templates", name).read_bytes()


def escape_comment(text: str) -> str:
    """Escape untrusted text for one line of a comment or of Markdown: no line end, markup or end of a comment."""
    kept = "".join(sign if sign.isalnum() or sign in " ._-:/" else "?" for sign in one_line(text))
    return kept.replace("//", "/")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("dskd_export.deployment", "templates"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(quoted=quote_literal, comment=escape_comment, shell=shlex.quote)
    return environment


@dataclass(frozen=True)
class Copied:
    """A file that may be too large to hold in memory.

    Attributes:
        source: its path.
        sha256: what it has to have, 64 hexadecimal digits.
    """

    source: Path
    sha256: str


Content = bytes | Copied


def write_content(path: Path, content: Content) -> None:
    """Write one file, with the folders above it.

    Raises:
        BundleError: what was copied is not what was verified.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
        return
    shutil.copyfile(content.source, path)
    if sha256_file(path) != content.sha256:
        raise BundleError(f"{content.source} was altered while it was copied.", "Run the same command again.")
