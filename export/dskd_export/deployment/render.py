"""Render templates to text. Nothing is escaped automatically: each place names the filter that quotes its text."""

from __future__ import annotations

import shlex
from functools import lru_cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined

from dskd_export.deployment.names import quote_literal
from dskd_export.files.json_text import one_line


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
