"""Collect faults and warnings instead of stopping at the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from dskd_compress.shortages import explain_error
from dskd_export.errors import DskdError, SeveralProblems

T = TypeVar("T")


class Findings:
    """What the checks of a run found, each once.

    Attributes:
        faults: without a change of each of these the run fails.
        warnings: sentences; the run may still succeed.
    """

    def __init__(self) -> None:
        self.faults: list[DskdError] = []
        self.warnings: list[str] = []

    def add(self, fault: DskdError) -> None:
        """Add a fault unless an equal one is there."""
        if fault.message not in {known.message for known in self.faults}:
            self.faults.append(fault)

    def warn(self, sentence: str) -> None:
        """Add a warning unless it is there."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def attempt(self, check: Callable[[], T]) -> T | None:
        """Run a check that raises.

        Returns:
            Its result; None where it found a fault. Errors that no user can act on are raised.
        """
        try:
            return check()
        except Exception as error:
            fault = explain_error(error)
            if not isinstance(fault, DskdError):
                raise
            self.add(fault)
            return None

    def raise_faults(self) -> None:
        """Raise what was found: a single fault itself, more as one error.

        Raises:
            DskdError: the single fault.
            SeveralProblems: more than one.
        """
        if not self.faults:
            return
        if len(self.faults) > 1:
            raise SeveralProblems("This run cannot start, and nothing was written", self.faults)
        (fault,) = self.faults
        fault.problems = (fault,)
        raise fault
