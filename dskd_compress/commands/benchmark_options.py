"""Options of `benchmark`, `ab` and `fleet`, and the recipe keys that they set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from dskd_compress.commands.options import as_overrides, flag_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dskd_compress.console import Output

Words = Optional[list[str]]

Precision = Annotated[
    Words, typer.Option("--precision", help="Only these precisions of the bundle, with commas: fp32,int8.")
]
Runner = Annotated[
    Words,
    typer.Option("--runner", help="Only these runners, with commas: onnxruntime, tensorrt; of a run also torch."),
]
Provider = Annotated[
    Words, typer.Option("--provider", help="Providers of ONNX Runtime, with commas: cpu, cuda, tensorrt.")
]
Batch = Annotated[Words, typer.Option("--batch", help="Batch sizes, with commas. Default: 1,8.")]
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
Profile = Annotated[bool, typer.Option("--profile", help="Time every node or layer too, and name the slowest.")]
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
Overrides = Annotated[
    Words,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a key, for example benchmark.threads=1; repeatable."),
]

# Old flags, for one release. --allow-cpu stays: a hint about operators names it, of validate as well.
OldOn = Annotated[Words, typer.Option("--on", "--device", hidden=True)]
OldWords = Annotated[Words, typer.Option(hidden=True)]
OldText = Annotated[Optional[str], typer.Option(hidden=True)]
OldPath = Annotated[Optional[Path], typer.Option(hidden=True)]


def split_words(given: Iterable[str] | None) -> list[Any] | None:
    """`A,B` and `C` as a list; words of digits as numbers."""
    if given is None:
        return None
    words = [word.strip() for text in given for word in text.split(",") if word.strip()]
    return [int(word) if word.isdecimal() else word for word in words]


def collect_overrides(
    precision: Words,
    runner: Words,
    provider: Words,
    batch: Words,
    set_: Words,
    allow_cpu: Words = None,
    profile: bool = False,
) -> list[str]:
    """Recipe keys that the flags set, then those of `--set`."""
    flags = as_overrides(
        benchmark__precisions=split_words(precision),
        benchmark__runners=split_words(runner),
        benchmark__providers=split_words(provider),
        benchmark__batches=split_words(batch),
        benchmark__allow_cpu=split_words(allow_cpu),
        benchmark__profile=profile or None,
    )
    return [*flags, *(set_ or [])]


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
