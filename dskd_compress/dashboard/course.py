"""Progress of a training, from its records alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

from dskd_export.documents.training import DiagnosisRecord, EpochRecord, Finding, StepRecord, TrainingRecord

# The next epoch is estimated from the last ones: the first ones may have been slower.
_LATE_EPOCHS = 3


@dataclass
class Course:
    """The course of a training in its log."""

    total_epochs: int | None = None  # of the whole training; None: unknown
    steps: list[StepRecord] = field(default_factory=list)  # all updates, in order
    epochs: list[EpochRecord] = field(default_factory=list)  # the ends of all epochs, in order
    findings: list[Finding] = field(default_factory=list)  # faults found, each once

    def add(self, records: Iterable[TrainingRecord]) -> None:
        """Add the next records."""
        for record in records:
            if isinstance(record, StepRecord):
                self.steps.append(record)
            elif isinstance(record, EpochRecord):
                self.epochs.append(record)
            elif isinstance(record, DiagnosisRecord):
                self.findings += [finding for finding in record.findings if finding not in self.findings]

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return self.epochs[-1].epoch + 1 if self.epochs else (self.steps[-1].epoch if self.steps else 0)

    @property
    def steps_per_epoch(self) -> float | None:
        """Updates per epoch; None before the end of the first."""
        return self.epochs[-1].step / (self.epochs[-1].epoch + 1) if self.epochs else None

    @property
    def total_steps(self) -> int | None:
        """Updates of the whole training; None: unknown."""
        if self.steps and self.steps[-1].total_steps is not None:
            return self.steps[-1].total_steps
        if self.total_epochs is None or self.steps_per_epoch is None:
            return None
        return round(self.steps_per_epoch * self.total_epochs)

    @property
    def fault(self) -> Finding | None:
        """The fault that stopped the training; None: there is none in the log."""
        last = self.findings[-1] if self.findings else None
        return last if last is not None and last.severity == "stop" else None

    @property
    def done(self) -> float | None:
        """Completed share of all updates, in [0, 1]; None: unknown."""
        return min(1.0, self.step / self.total_steps) if self.total_steps else None

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the time until the last epoch is validated; None: unknown."""
        if self.total_epochs is None or self.steps_per_epoch is None:
            return None
        begun = (self.step - self.epochs[-1].step) / self.steps_per_epoch
        left = max(0.0, self.total_epochs - self.epoch - begun)
        return left * median(record.seconds for record in self.epochs[-_LATE_EPOCHS:])

    @property
    def best(self) -> EpochRecord | None:
        """The epoch whose weights are saved."""
        return next((record for record in reversed(self.epochs) if record.best), None)

    @property
    def terms(self) -> dict[str, list[float]]:
        """Values by loss term, the total first."""
        names = dict.fromkeys(name for record in self.steps[-1:] for name in record.losses)
        ordered = sorted(names, key=lambda name: name != "loss")
        return {name: [record.losses[name] for record in self.steps if name in record.losses] for name in ordered}

    @property
    def monitors(self) -> dict[str, list[float]]:
        """Values by monitor of the method, of the steps that have them."""
        found: dict[str, list[float]] = {}
        for record in self.steps:
            for name, value in record.monitors.items():
                found.setdefault(name, []).append(value)
        return found

    @property
    def step(self) -> int:
        """Completed updates."""
        return max(self.steps[-1].step if self.steps else 0, self.epochs[-1].step if self.epochs else 0)
