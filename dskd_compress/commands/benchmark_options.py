"""Options of `benchmark`, `ab` and `fleet` that stand for no recipe key, and old ones that did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from dskd_compress.commands.options import as_overrides, flag_of, split_words

if TYPE_CHECKING:
    from dskd_compress.console import Output

Words = Optional[list[str]]

Images = Annotated[
    Optional[Path],
    typer.Option("--images", metavar="FOLDER", help="Labelled images for a bundle. Default: noise."),
]
Baseline = Annotated[
    Optional[Path], typer.Option("--baseline", metavar="FILE", help="Exit 5 if slower than this benchmark.json.")
]
Junit = Annotated[Optional[Path], typer.Option("--junit", metavar="FILE", help="Write verdicts as JUnit XML.")]
# Not in the help, which is full: a job of GitHub needs no flag, and docs/benchmarking.md lists it for others.
Summary = Annotated[Optional[Path], typer.Option("--summary", hidden=True)]
ReportOnly = Annotated[
    bool, typer.Option("--report-only", help="Exit 0 also where a budget or baseline is missed.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Time everything again instead of resuming.")]
Results = Annotated[
    Optional[Path],
    typer.Option("--out", "-o", help="Folder for the results of a bundle. Default: results/<bundle>/<device>."),
]
On = Annotated[
    Words,
    typer.Option("--on", metavar="DEVICE", help="Where to run: ssh://user@host[:port], or local; repeatable."),
]
RemoteCommand = Annotated[
    str, typer.Option("--remote-command", help="Command that starts this tool on the other machines.")
]
SshConfig = Annotated[
    Optional[Path], typer.Option("--ssh-config", metavar="FILE", help="Configuration file for ssh.")
]
# Old flags, for one release.
OldOn = Annotated[Words, typer.Option("--on", "--device", hidden=True)]
OldWords = Annotated[Words, typer.Option(hidden=True)]
OldText = Annotated[Optional[str], typer.Option(hidden=True)]
OldPath = Annotated[Optional[Path], typer.Option(hidden=True)]


def replace_old_flags(output: Output, **old: Words) -> list[str]:
    """Recipe keys that old flags set, each with a note of its replacement on stderr."""
    changes: list[str] = []
    for name, given in old.items():
        values = split_words(given)
        if values:
            key, value = f"benchmark.{name}", values[0] if name == "cross_check" else values
            shown = f"[{','.join(map(str, values))}]" if name != "cross_check" else value
            output.warn(f"{flag_of(key)} is deprecated; use: --set '{key}={shown}'")
            changes += as_overrides(**{key.replace(".", "__"): value})
    return changes
