"""Where a training stands, from its records alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

from dskd_export.documents.training import DiagnosisRecord, EpochRecord, Finding, StepRecord, TrainingRecord

# As many as tell how long the next one takes: the first ones may have been slower.
_LATE_EPOCHS = 3


@dataclass
class Course:
    """All that a log says of a training.

    Attributes:
        total_epochs: that it will have; None: nobody knows.
        steps: every update, in order.
        epochs: every epoch's end, in order.
        findings: faults that were seen, each once.
    """

    total_epochs: int | None = None
    steps: list[StepRecord] = field(default_factory=list)
    epochs: list[EpochRecord] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, records: Iterable[TrainingRecord]) -> None:
        """Take in the next records."""
        for record in records:
            if isinstance(record, StepRecord):
                self.steps.append(record)
            elif isinstance(record, EpochRecord):
                self.epochs.append(record)
            elif isinstance(record, DiagnosisRecord):
                self.findings += [finding for finding in record.findings if finding not in self.findings]

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        return self.epochs[-1].epoch + 1 if self.epochs else (self.steps[-1].epoch if self.steps else 0)

    @property
    def steps_per_epoch(self) -> float | None:
        """Updates of an epoch; None before the first has ended."""
        return self.epochs[-1].step / (self.epochs[-1].epoch + 1) if self.epochs else None

    @property
    def done(self) -> float | None:
        """Share of all updates, in [0, 1]; None where it cannot be told."""
        if self.total_epochs is None or self.steps_per_epoch is None:
            return None
        return min(1.0, self.step / (self.steps_per_epoch * self.total_epochs))

    @property
    def seconds_left(self) -> float | None:
        """Until the last epoch has been validated, as the last epochs went; None where it cannot be told."""
        if self.total_epochs is None or self.steps_per_epoch is None:
            return None
        begun = (self.step - self.epochs[-1].step) / self.steps_per_epoch
        left = max(0.0, self.total_epochs - self.epoch - begun)
        return left * self._epoch_seconds()

    @property
    def best(self) -> EpochRecord | None:
        """The epoch whose weights are kept."""
        return next((record for record in reversed(self.epochs) if record.best), None)

    @property
    def terms(self) -> dict[str, list[float]]:
        """Loss term -> its values, the total first."""
        names = dict.fromkeys(name for record in self.steps[-1:] for name in record.losses)
        ordered = sorted(names, key=lambda name: name != "loss")
        return {name: [record.losses[name] for record in self.steps if name in record.losses] for name in ordered}

    @property
    def monitors(self) -> dict[str, list[float]]:
        """Monitor of the method -> its values, of the steps that were looked at."""
        found: dict[str, list[float]] = {}
        for record in self.steps:
            for name, value in record.monitors.items():
                found.setdefault(name, []).append(value)
        return found

    @property
    def step(self) -> int:
        """Updates that are done."""
        return max(self.steps[-1].step if self.steps else 0, self.epochs[-1].step if self.epochs else 0)

    def _epoch_seconds(self) -> float:
        """Of one epoch; several may lie between two validations, and the record tells of the last alone."""
        return median(record.seconds for record in self.epochs[-_LATE_EPOCHS:])
