"""Old names of options: still understood for one release, with a note that names the new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import typer
from typer.core import TyperCommand


class RenamedOptions(TyperCommand):
    """A command that replaces old options before they are parsed; a subclass lists them.

    Attributes:
        converted: old option -> the value that the new one takes for the old one's.
    """

    renamed: ClassVar[Mapping[str, str]] = {}  # old option -> new option
    converted: ClassVar[Mapping[str, Callable[[str], str]]] = {}

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Replace old options, then parse."""
        replaced: list[str] = []
        convert: Callable[[str], str] | None = None
        for index, argument in enumerate(args):
            if argument == "--":
                replaced += args[index:]
                break
            option, equals, value = argument.partition("=")
            if convert is not None:
                replaced.append(convert(argument))
                convert = None
            elif option in self.renamed:
                new = self.renamed[option]
                typer.echo(f"warning: {option} is now called {new}", err=True)
                convert = self.converted.get(option)
                if equals and convert is not None:
                    value, convert = convert(value), None
                replaced.append(f"{new}{equals}{value}")
            else:
                replaced.append(argument)
        return super().parse_args(ctx, replaced)
