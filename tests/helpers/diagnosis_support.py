"""A teacher that really knows its digits, and trainings that are watched."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from support import make_format, make_model
from torch import Tensor, nn

from dskd_compress.config import AugmentSection, DataSection, DiagnosisSection, DskdMethod, Method, TrainSection
from dskd_compress.data import DataSets, TrainLoader, open_data
from dskd_compress.methods import MethodTask, Pair, create_task
from dskd_compress.training.checkpoint import CheckpointStore
from dskd_compress.training.diagnosis import Diagnosis, Formats
from dskd_compress.training.loop import Trainer
from dskd_export.documents.base import Accuracy, Interval
from dskd_export.documents.training import DiagnosisRecord, Finding, StepRecord
from dskd_export.errors import DiagnosisError

CPU = torch.device("cpu")
BATCH = 48
FORMAT = make_format(32, 0.5, 0.5)
DATA = DataSection(input_size=32, workers=0, augment=AugmentSection(hflip=0.0, scale=(0.8, 1.0)))
FORMATS = Formats((FORMAT.mean, FORMAT.std), (FORMAT.mean, FORMAT.std))
DSKD = DskdMethod(stats_batches=1)
DEFAULT = DiagnosisSection()
SECTION = TrainSection(epochs=4, batch_size=BATCH, optimizer="adamw", lr=2e-3)


@dataclass
class Digits:
    """Images, and a teacher trained on them as `FORMAT` has them."""

    sets: DataSets
    trained: nn.Module

    def teacher(self) -> nn.Module:
        return copy.deepcopy(self.trained)

    def loader(self, batch: int = BATCH) -> TrainLoader:
        return TrainLoader(self.sets, DATA, FORMAT, batch_size=batch, seed=0, device=CPU)

    def task(self, method: Method, teacher: nn.Module | None = None) -> MethodTask:
        pair = Pair(make_model("test_efficientnet"), FORMAT, teacher or self.teacher(), FORMAT)
        task = create_task(method, pair.student, pair, label_smoothing=0.0, seed=0, device=CPU)
        task.fit_statistics(images for images, _ in [next(iter(self.loader().epoch(-1)))])
        return task


@cache
def train_teacher() -> Digits:
    """Two epochs, which bring it to about 97 %."""
    sets = open_data(DATA, 0)
    model = make_model("test_resnet", seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    loader = TrainLoader(sets, DATA, FORMAT, batch_size=BATCH, seed=1, device=CPU)
    for epoch in range(2):
        for images_BCHW, labels_B in loader.epoch(epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(images_BCHW), labels_B).backward()
            optimizer.step()
    model.eval().requires_grad_(False)
    with torch.no_grad():
        right = [(model(x).argmax(1) == y).float().mean() for x, y in loader.epoch(2)]
    assert torch.stack(right).mean() > 0.9
    return Digits(sets, model)


def nothing_to_validate(student: nn.Module) -> tuple[Accuracy, float]:
    return Accuracy(top1=Interval(value=0.5, low=0.4, high=0.6), images=1), 1.0


@dataclass
class Watched:
    """What came of a training that was watched."""

    steps: list[StepRecord] = field(default_factory=list)
    looks: list[DiagnosisRecord] = field(default_factory=list)
    error: DiagnosisError | None = None
    student: dict[str, Tensor] = field(default_factory=dict)

    @property
    def findings(self) -> list[Finding]:
        return [finding for look in self.looks for finding in look.findings]


def watch(
    digits: Digits,
    folder: Path,
    task: MethodTask,
    *,
    steps: int,
    section: DiagnosisSection | None = DEFAULT,
    formats: Formats | None = FORMATS,
    known_accuracy: float | None = None,
    plant: Callable[[Trainer], None] = lambda trainer: None,
    whole: bool = False,
    last: int | None = None,
    batch: int = BATCH,
) -> Watched:
    """Train a task for some steps under a diagnosis; it ends early where a fault was found.

    Args:
        folder: for checkpoints.
        section: None trains without one.
        plant: told the trainer before its first step.
        whole: go on after a finding.
        last: the step that is known to be the last.
        batch: images of a step.
    """
    diagnosis = None
    if section is not None:
        names = digits.sets.classes
        diagnosis = Diagnosis(section, task, formats=formats, classes=names, known_accuracy=known_accuracy)
    trainer = Trainer(
        task,
        digits.loader(batch),
        nothing_to_validate,
        SECTION.model_copy(update={"batch_size": batch}),
        seed=0,
        store=CheckpointStore(folder, "one"),
        after_backward=None if diagnosis is None else diagnosis.after_backward,
    )
    plant(trainer)
    seen = Watched()
    try:
        if diagnosis is not None:
            diagnosis.begin(0, trainer.optimization.optimizer, scale=trainer.scaler.get_scale, last=last)
        for record in trainer.run():
            if isinstance(record, StepRecord):
                seen.steps.append(record)
            seen.looks += diagnosis.take() if diagnosis is not None else []
            if len(seen.steps) >= steps or (seen.findings and not whole):
                break
    except DiagnosisError as error:
        seen.error = error
    if diagnosis is not None:
        seen.looks += diagnosis.take()
        diagnosis.close()
    seen.student = {name: value.clone() for name, value in task.module.state_dict().items()}
    return seen
