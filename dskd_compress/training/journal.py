"""Where the records of a training go: the log, the trackers, and findings also to the terminal."""

from __future__ import annotations

import contextlib
from collections import deque

from dskd_compress.console import Output
from dskd_compress.training.diagnosis import Diagnosis
from dskd_compress.training.log import TrainingLog
from dskd_compress.training.trackers import Trackers
from dskd_export.documents.training import DiagnosisRecord, EpochRecord, Finding, StepRecord, TrainingRecord
from dskd_export.errors import TrainingDiverged


class Journal:
    """Writes every record to all places that want it, in the order of their steps.

    Args:
        diagnosis: its records follow those of their steps; None where nobody looks.
    """

    def __init__(self, log: TrainingLog, trackers: Trackers, diagnosis: Diagnosis | None, output: Output) -> None:
        self._log, self._trackers, self._diagnosis, self._output = log, trackers, diagnosis, output
        self._looks: deque[DiagnosisRecord] = deque()

    def write(self, record: StepRecord | EpochRecord) -> None:
        """Write a record of the loop, and what the diagnosis found up to its step."""
        self._write(record)
        self._write_looks(record.step)

    def write_divergence(self, error: TrainingDiverged) -> None:
        """Write why a training diverged, for those who read the log. A resumed training drops it."""
        finding = Finding(
            kind="diverged",
            step=error.step,
            severity="stop",
            seen=f"The training diverged: {error.seen}.",
            means="No further step is possible.",
            cure=error.hint or "",
        )
        self._write_looks(error.step)
        self._write(
            DiagnosisRecord(
                step=error.step,
                epoch=error.epoch,
                gradient_norms={},
                gradient_at={},
                teacher=None,
                findings=[finding],
            )
        )

    def close(self) -> None:
        """Write what is left and close all of it; looks at steps that were not finished are written as well."""
        with contextlib.closing(self._log):
            try:
                self._write_looks(None)
            finally:
                self._trackers.finish()
                if self._diagnosis is not None:
                    self._diagnosis.close()

    def _write_looks(self, step: int | None) -> None:
        # A GPU's steps are read many at a time: looks may be ahead of the steps that are recorded.
        if self._diagnosis is not None:
            self._looks.extend(self._diagnosis.take())
        while self._looks and (step is None or self._looks[0].step <= step):
            look = self._looks.popleft()
            self._write(look)
            for finding in look.findings:
                if finding.severity == "warning":  # one that stops is in the error
                    when = f"step {finding.step}: " if finding.step else ""
                    self._output.warn(f"{when}{finding.seen} {finding.means} {finding.cure}")

    def _write(self, record: TrainingRecord) -> None:
        self._log.write(record)
        self._trackers.log(record)
