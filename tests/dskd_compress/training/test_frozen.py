"""What is frozen stays bit for bit, through clipping, averages, a resume and a step that is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from support import make_pair
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dskd_compress.config import AugmentSection, DataSection, DskdMethod, NoneMethod, TrainSection
from dskd_compress.data import TrainLoader, ValLoader, open_data
from dskd_compress.methods import MethodTask, create_head_task, create_task
from dskd_compress.methods.none import find_classifier
from dskd_compress.training.checkpoint import CheckpointStore
from dskd_compress.training.evaluate import evaluate_model
from dskd_compress.training.loop import Trainer
from dskd_export.documents.training import StepRecord
from dskd_export.errors import TrainingDiverged

CPU = torch.device("cpu")
DATA = DataSection(input_size=32, workers=0, val_fraction=0.9, augment=AugmentSection(hflip=0.0, scale=(0.6, 1.0)))
SECTION = TrainSection(epochs=2, batch_size=32, lr=0.05, ema_decay=0.9)
WITHOUT_GROUPS = SECTION.model_copy(update={"decay_norm_and_bias": True, "optimizer": "adamw", "lr": 1e-3})


def make_trainer(folder: Path, section: TrainSection, *, head: bool = False) -> Trainer:
    pair = make_pair("test_efficientnet", "test_resnet", size=32)
    sets = open_data(DATA, 0)
    if head:
        task = create_head_task(pair.student, label_smoothing=0.1, device=CPU)
    else:
        task = create_task(NoneMethod(), pair.student, None, label_smoothing=0.1, seed=0, device=CPU)
    validation = ValLoader(sets, pair.student_format, batch_size=256, device=CPU, workers=0)
    trainer = Trainer(
        task,
        TrainLoader(sets, DATA, pair.student_format, batch_size=section.batch_size, seed=0, device=CPU),
        lambda model: evaluate_model(model, islice(validation, 1)),
        section,
        seed=0,
        store=CheckpointStore(folder, "one"),
    )
    trainer.resume()
    return trainer


def list_head(student: nn.Module) -> set[str]:
    """Names of what training the classifier alone may change."""
    kept = {id(part) for layer in find_classifier(student) for part in layer.parameters()}
    return {name for name, parameter in student.named_parameters() if id(parameter) in kept}


def list_all_but_batch_norm(student: nn.Module) -> set[str]:
    norms = [name for name, module in student.named_modules() if isinstance(module, _BatchNorm)]
    return {name for name in student.state_dict() if name.rpartition(".")[0] not in norms}


CASES = {
    "head": (SECTION, True, list_head),
    "head, without groups": (WITHOUT_GROUPS, True, list_head),
    "head, recomputed": (SECTION.model_copy(update={"grad_checkpointing": True}), True, list_head),
    "batch norm": (SECTION.model_copy(update={"freeze_batch_norm": True}), False, list_all_but_batch_norm),
    "batch norm, without groups": (
        WITHOUT_GROUPS.model_copy(update={"freeze_batch_norm": True}),
        False,
        list_all_but_batch_norm,
    ),
}


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def list_changed(before: dict[str, Tensor], model: nn.Module) -> set[str]:
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("name", CASES)
def test_only_the_rest_changes(name: str, tmp_path: Path) -> None:
    section, head, list_trained = CASES[name]
    trainer = make_trainer(tmp_path, section, head=head)
    student = trainer.task.module.student
    before, trained = copy_state(student), list_trained(student)
    optimized = {id(one) for group in trainer.optimization.optimizer.param_groups for one in group["params"]}
    assert optimized == {id(one) for key, one in student.named_parameters() if key in trained}
    norms = [record.grad_norm for record in trainer.run() if isinstance(record, StepRecord)]
    assert all(norm is not None and norm > 0 for norm in norms)
    assert list_changed(before, student) == trained
    assert list_changed(before, trainer.student) == trained  # the weight average


@pytest.mark.parametrize("name", ["head", "batch norm"])
def test_a_resumed_training_ends_the_same(name: str, tmp_path: Path) -> None:
    section, head, _ = CASES[name]
    whole = make_trainer(tmp_path / "whole", section, head=head)
    list(whole.run())
    stopped = make_trainer(tmp_path / "stopped", section, head=head)
    for record in stopped.run():
        if isinstance(record, StepRecord) and record.step == 3:
            stopped.save()
            break
    resumed = make_trainer(tmp_path / "stopped", section, head=head)
    assert resumed.progress.step == 3
    list(resumed.run())
    for one, other in ((whole.task.module, resumed.task.module), (whole.student, resumed.student)):
        assert list_changed(copy_state(one), other) == set()


@pytest.mark.parametrize("name", ["head", "batch norm"])
def test_a_step_that_is_not_finite_changes_nothing(name: str, tmp_path: Path) -> None:
    section, head, _ = CASES[name]
    trainer = make_trainer(tmp_path, section, head=head)
    real: Callable[..., dict[str, Tensor]] = trainer.task.forward
    kept: dict[str, Tensor] = {}

    def diverge(*arguments: object) -> dict[str, Tensor]:
        result = real(*arguments)
        if trainer.progress.step == 3:
            kept.update(copy_state(trainer.task.module))
            result["loss"] = result["loss"] * math.inf
        return result

    trainer.task.forward = diverge  # type: ignore[method-assign]
    with pytest.raises(TrainingDiverged, match="Step 4"):
        list(trainer.run())
    assert list_changed(kept, trainer.task.module) == set()


def test_batch_norms_of_training_only_heads_train_on() -> None:
    """A frozen one with random weights would not normalise."""
    pair = make_pair("test_efficientnet", "test_resnet", size=32)
    task: MethodTask = create_task(
        DskdMethod(stats_batches=1), pair.student, pair, label_smoothing=0.0, seed=0, device=CPU
    )
    task.module.freeze_batch_norm()
    task.train()
    inside = set(task.module.student.modules())
    norms = [module for module in task.module.modules() if isinstance(module, _BatchNorm)]
    assert {norm.training for norm in norms if norm in inside} == {False}
    assert all(norm.training for norm in norms if norm not in inside)
    frozen = [name for name, parameter in task.module.named_parameters() if not parameter.requires_grad]
    assert all(name.startswith("student.") for name in frozen)
