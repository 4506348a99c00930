from __future__ import annotations

import pytest
from torch import nn

from dskd_compress.training.progress_facts import ProgressFacts, name_validation
from dskd_export.documents.training import EpochRecord, StepRecord


def step(number: int, loss: float, images_per_s: float, data_wait: float | None) -> StepRecord:
    return StepRecord(
        step=number,
        epoch=0,
        losses={"loss": loss, "ce": 1.0},
        grad_norm=None,
        learning_rate=0.1,
        images_per_s=images_per_s,
        data_wait=data_wait,
    )


def test_facts_of_a_training() -> None:
    facts = ProgressFacts(None)
    assert facts.add(step(1, 1.25, 100.0, None)) == ["loss 1.250", "100 images/s"]
    assert facts.add(step(2, 123.456, 300.0, 0.5)) == ["loss 123.5", "200 images/s", "data 50 %"]
    end = EpochRecord(epoch=0, step=2, train_loss=1.0, val_loss=1.0, top1=0.912, top5=None, best=True, seconds=1.0)
    assert facts.add(end) == ["loss 123.5", "top-1 91.2 %", "200 images/s", "data 50 %"]
    for number in range(3, 23):
        last = facts.add(step(number, 0.0316, 50.0, 0.03))
    assert last == ["loss 0.032", "top-1 91.2 %", "50 images/s", "data 3 %"]


def test_a_resumed_training_has_the_accuracy_from_before() -> None:
    assert ProgressFacts(0.5).add(step(1, 1.0, 10.0, 0.0))[1] == "top-1 50.0 %"


def test_a_validation_is_named_and_its_end_too() -> None:
    class Descriptions(list[str]):
        def advance(self, n: float = 1, facts: object = None) -> None: ...

        def update(self, *, description: str) -> None:
            self.append(description)

    said = Descriptions()

    def fail(_: nn.Module) -> tuple[object, float]:
        said.append("now")
        raise ValueError

    with pytest.raises(ValueError):
        name_validation(fail, said, "distill")(nn.Identity())  # type: ignore[arg-type]
    assert said == ["validating", "now", "distill"]
