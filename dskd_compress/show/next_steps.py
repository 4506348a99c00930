"""What to try next, for the terminal. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

from dskd_compress.console import Output
from dskd_export.report.next_steps import NextStep


def print_next_steps(steps: Sequence[NextStep], output: Output) -> None:
    """Print each step, with its command on a separate line to copy."""
    if steps:
        output.plain("What to try next:")
    for number, step in enumerate(steps, start=1):
        output.plain(f"{number}. {step.fact} {step.advice}\n   {step.command}")
