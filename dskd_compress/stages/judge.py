"""What a validation means: shown as a table, and as a gate."""

from __future__ import annotations

from dskd_compress.console import Output
from dskd_export.documents import ValidationDocument
from dskd_export.errors import GateFailed


def print_validation(document: ValidationDocument, output: Output) -> None:
    """One row a limit."""
    output.table(
        "Validation",
        ["check", "value", "limit", "verdict"],
        [
            [
                check.name,
                "not measurable" if check.value is None else f"{check.value:.3g}",
                f"{check.comparison} {check.limit:g}",
                "PASS" if check.passed else "FAIL",
            ]
            for check in document.checks
        ],
    )


def refuse_failed(document: ValidationDocument) -> None:
    """End with the gate's exit code where a limit was crossed.

    Raises:
        GateFailed: names every limit that was crossed.
    """
    failed = [check for check in document.checks if not check.passed]
    if failed:
        crossed = "; ".join(
            f"{check.name} is {'not measurable' if check.value is None else f'{check.value:.3g}'}, "
            f"the limit is {check.comparison} {check.limit:g}"
            for check in failed
        )
        raise GateFailed(
            f"The exported student does not pass: {crossed}.",
            "Look at validation.json, or change the limits in validate.",
        )
