"""What the progress line of a training shows, from its records."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from torch import nn

from dskd_compress.console import Progress
from dskd_export.documents.base import Accuracy
from dskd_export.documents.training import EpochRecord, StepRecord

_OVER_STEPS = 20

Validate = Callable[[nn.Module], tuple[Accuracy, float]]


class ProgressFacts:
    """Loss, top-1 of the last epoch, speed and share of waiting, the most important first.

    Args:
        top1: of the last epoch of a resumed training, a fraction in [0, 1]; None: none has ended.
    """

    def __init__(self, top1: float | None) -> None:
        self._top1 = top1
        self._steps: deque[StepRecord] = deque(maxlen=_OVER_STEPS)

    def add(self, record: StepRecord | EpochRecord) -> list[str]:
        """Add a record; returns the facts as short texts. Speed and waiting are means over the last steps."""
        if isinstance(record, EpochRecord):
            self._top1 = record.top1
        else:
            self._steps.append(record)
        facts = []
        if self._steps:
            facts.append(f"loss {_format_loss(self._steps[-1].losses['loss'])}")
        if self._top1 is not None:
            facts.append(f"top-1 {100 * self._top1:.1f} %")
        if self._steps:
            facts.append(f"{_mean([step.images_per_s for step in self._steps]):.0f} images/s")
        waits = [step.data_wait for step in self._steps if step.data_wait is not None]
        if waits:
            facts.append(f"data {100 * _mean(waits):.0f} %")
        return facts


def name_validation(validate: Validate, progress: Progress, stage: str) -> Validate:
    """Say on the progress line that the student is validated, which may take minutes."""

    def validate_shown(student: nn.Module) -> tuple[Accuracy, float]:
        progress.update(description="validating")
        try:
            return validate(student)
        finally:
            progress.update(description=stage)

    return validate_shown


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _format_loss(loss: float) -> str:
    return f"{loss:.3f}" if abs(loss) < 10 else f"{loss:.4g}"
