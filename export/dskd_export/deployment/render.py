"""Templates to text. Nothing is escaped by itself: each place says with a filter how its text is quoted there."""

from __future__ import annotations

import shlex
from functools import lru_cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined

from dskd_export.deployment.names import quote_literal
from dskd_export.files.json_text import one_line


def render_template(template: str, **values: object) -> bytes:
    """The text of a template as UTF-8; `template` is its path below `templates/`."""
    return _environment().get_template(template).render(**values).encode()


def read_static(name: str) -> bytes:
    """A file below `templates/` as it is."""
    return resources.files("dskd_export.deployment").joinpath("templates", name).read_bytes()


def escape_comment(text: str) -> str:
    """A stranger's text within a line of a comment or of Markdown: no line end, no markup, no end of a comment."""
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
