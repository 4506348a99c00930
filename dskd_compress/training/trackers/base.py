"""What a tracker is, and the one that speaks to all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from dskd_compress.training.log import number_of
from dskd_export.documents.training import DiagnosisRecord, EpochRecord, StepRecord, TrainingRecord


class Tracker(Protocol):
    """Takes the records of one training."""

    def log(self, record: TrainingRecord) -> None:
        """Take one record; steps never fall."""
        ...

    def finish(self) -> None:
        """Bring everything to its place."""
        ...


@dataclass(frozen=True)
class RunLabel:
    """How a run is called, and the id that it keeps over interruptions."""

    name: str
    id: str


def collect_scalars(record: TrainingRecord) -> dict[str, float]:
    """Collect a record's numbers by name, the same names in every tracker; what was not measured is left out."""
    values: dict[str, float | None]
    if isinstance(record, StepRecord):
        values = {f"train/{name}": value for name, value in record.losses.items()}
        values |= {
            "train/grad_norm": record.grad_norm,
            "train/learning_rate": record.learning_rate,
            "train/images_per_s": record.images_per_s,
        }
        values |= {f"monitor/{name}": value for name, value in record.monitors.items()}
    elif isinstance(record, EpochRecord):
        values = {
            "epoch/train_loss": record.train_loss,
            "epoch/val_loss": record.val_loss,
            "epoch/top1": record.top1,
            "epoch/top5": record.top5,
        }
    else:
        values = {f"gradient/{name}": norm for name, norm in record.gradient_norms.items()}
        if record.teacher is not None:
            values |= {f"teacher/{name}": value for name, value in record.teacher.model_dump().items()}
        values["diagnosis/findings"] = len(record.findings)
    return {name: float(value) for name, value in values.items() if value is not None}


class Trackers:
    """All trackers of a training. One that fails is warned of once and then left alone.

    Args:
        trackers: by name.
        every_steps: step records between two that are passed on; epochs and diagnoses all are.
        reached: last record of each kind that is tracked already. A run that was killed resumes from its
            checkpoint and makes the records after it again, with the same numbers.
        warn: called with a warning when a tracker fails.
    """

    def __init__(
        self,
        trackers: Mapping[str, Tracker],
        every_steps: int,
        reached: Mapping[str, int],
        warn: Callable[[str], None],
    ) -> None:
        self._trackers, self._every, self._reached, self._warn = dict(trackers), every_steps, dict(reached), warn

    def log(self, record: TrainingRecord) -> None:
        """Pass a record on, where it is new and wanted."""
        if not self._trackers or number_of(record) <= self._reached.get(record.kind, -1):
            return
        if isinstance(record, StepRecord) and record.step != 1 and record.step % self._every != 0:
            return
        for name in list(self._trackers):
            try:
                self._trackers[name].log(record)
            except Exception as error:  # a full disk or a dead server of a tracker does not end a training
                self._give_up(name, error)

    def finish(self) -> None:
        """End all of them."""
        for name in list(self._trackers):
            try:
                self._trackers.pop(name).finish()
            except Exception as error:
                self._give_up(name, error)

    def _give_up(self, name: str, error: Exception) -> None:
        self._trackers.pop(name, None)
        self._warn(f"{name} failed and gets no more records: {first_line(error)}. train.jsonl has every record.")


def first_line(error: Exception) -> str:
    """Shorten an error of a tracker to its first line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def format_findings(record: TrainingRecord) -> str:
    """Format the findings of a record, one a line; empty where there are none."""
    if not isinstance(record, DiagnosisRecord):
        return ""
    return "\n".join(
        f"{finding.kind}: {finding.seen} {finding.means} {finding.cure}" for finding in record.findings
    )
