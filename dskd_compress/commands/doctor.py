"""`dskd-compress doctor`: check what will work on this machine, before any work."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Optional

import typer

from dskd_compress.commands import options


class Purpose(str, Enum):
    """What the machine is wanted for."""

    train = "train"
    export = "export"
    build = "build"
    benchmark = "benchmark"


def doctor(
    purpose: Annotated[
        Optional[Purpose], typer.Option("--for", help="What must work: problems of the rest are only warnings.")
    ] = None,
    provider: Annotated[
        Optional[str], typer.Option("--provider", help="Provider of ONNX Runtime that must run: cuda or tensorrt.")
    ] = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Check this machine: packages, GPU, libraries, disk and memory. Exit code 4: a requirement is broken.

    It ends with what this machine can do, what it cannot, and the command for the rest. docs/codes.md lists the
    codes.

    [bold]Examples[/bold]

      dskd-compress doctor
      dskd-compress doctor --for train
      dskd-compress doctor --for benchmark --provider cuda --json
    """
    from rich.text import Text

    from dskd_compress.console import Output
    from dskd_export.doctor import diagnose, summarise
    from dskd_export.errors import EnvironmentProblem, UsageError
    from dskd_export.runtime.providers import PROVIDERS

    output = Output(json_output)
    if provider is not None and provider not in PROVIDERS:
        raise UsageError(f"There is no provider {provider}.", f"Choose --provider {' or '.join(PROVIDERS)}.")
    findings = diagnose(purpose.value if purpose is not None else None, provider=provider)
    style = {"ok": "green", "warning": "yellow", "error": "bold red"}
    rows = [
        [finding.code, Text(finding.level, style=style[finding.level]), finding.what, finding.cure or ""]
        for finding in findings
    ]
    output.table("This machine", ["code", "level", "what", "what to do"], rows)
    broken = [finding for finding in findings if finding.level == "error"]
    summary = summarise(findings)
    for line in summary.lines():
        output.plain(line)
    output.result(
        {
            "purpose": purpose.value if purpose is not None else None,
            "ok": not broken,
            "findings": findings,
            "summary": summary,
        }
    )
    if broken:
        raise EnvironmentProblem(
            "This machine is not ready: "
            + "; ".join(f"{finding.code} {finding.what}" for finding in broken)
            + ".",
            broken[0].cure,
        )
