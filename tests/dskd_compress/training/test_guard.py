"""A planted NaN or Inf never reaches the weights, whichever way the decision is made."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from diagnosis_support import nothing_to_validate
from support import make_format, make_pair
from torch import Tensor

from dskd_compress.config import AugmentSection, DataSection, KdMethod, Method, NoneMethod, TrainSection
from dskd_compress.data import TrainLoader, open_data
from dskd_compress.methods import MethodTask, create_task
from dskd_compress.methods.base import OUTSIDE, StepContext
from dskd_compress.training.checkpoint import CheckpointStore
from dskd_compress.training.guard import HeldTensors, UpdateGuard, spread_nonfinite
from dskd_compress.training.loop import Trainer
from dskd_export.documents.training import StepRecord
from dskd_export.errors import TrainingDiverged

CPU = torch.device("cpu")
DATA = DataSection(input_size=32, workers=0, val_fraction=0.9, augment=AugmentSection(hflip=0.0))
BAD_STEP = 3  # 1-based
SECTIONS = {
    "sgd": TrainSection(epochs=1, batch_size=32, lr=0.02, ema_decay=0.9),
    "adamw": TrainSection(epochs=1, batch_size=32, lr=1e-3, optimizer="adamw", ema_decay=0.9, clip_grad=None),
    "pieces": TrainSection(epochs=1, batch_size=32, lr=0.02, grad_accumulation=2),
    "lamb": TrainSection(epochs=1, batch_size=32, lr=1e-3, optimizer="lamb", channels_last=True),
}


def make_trainer(
    folder: Path, section: TrainSection, method: Method | None = None, on_host: bool | None = None
) -> Trainer:
    pair = make_pair("test_efficientnet", "test_resnet", size=32)  # batch norm
    method = method or NoneMethod()
    task = create_task(
        method,
        pair.student,
        None if isinstance(method, NoneMethod) else pair,
        label_smoothing=0.0,
        seed=0,
        device=CPU,
    )
    if section.channels_last:
        task.to(memory_format=torch.channels_last)
    loader = TrainLoader(open_data(DATA, 0), DATA, make_format(32), batch_size=32, seed=0, device=CPU)
    store = CheckpointStore(folder, "one")
    trainer = Trainer(task, loader, nothing_to_validate, section, seed=0, store=store)
    if on_host is not None:
        trainer._guard = UpdateGuard(task, trainer.optimization.optimizer, on_host)
    return trainer


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    """Weights, running statistics, average and optimizer state, copied."""
    average = trainer.task.get_trainable_module(ema=True)
    modules = {"module": trainer.task.module, "average": None if average is None else average.module}
    tensors = {
        f"{kind}.{name}": value
        for kind, module in modules.items()
        if module is not None
        for name, value in module.state_dict().items()
    }
    for number, state in enumerate(trainer.optimization.optimizer.state.values()):
        tensors |= {f"{number}.{key}": value for key, value in state.items() if isinstance(value, Tensor)}
    return {name: value.clone() for name, value in tensors.items()}


class BadLoss(MethodTask):
    """The loss of the bad step is Inf in its last micro-batch; its gradients alone would be finite."""

    def forward(self, input: Tensor, target: Tensor, context: StepContext = OUTSIDE) -> dict[str, object]:
        result = super().forward(input, target, context)
        last = context.rows is not None and 31 in context.rows
        if context.step >= BAD_STEP - 1 and last:
            result["loss"] = result["loss"] + math.inf
            result["terms"]["ce"] = result["terms"]["ce"] + math.inf
        return result


class BadInput(MethodTask):
    """The images of the bad step are NaN, and so are the running statistics of its batch norms."""

    def forward(self, input: Tensor, target: Tensor, context: StepContext = OUTSIDE) -> dict[str, object]:
        return super().forward(input * math.nan if context.step == BAD_STEP - 1 else input, target, context)


def plant_gradient(trainer: Trainer, value: float) -> None:
    """One element of one gradient, with a finite loss."""
    parameter = next(p for p in trainer.task.module.parameters() if p.ndim > 1)
    trainer.task.module.register_forward_pre_hook(lambda _, inputs: steps.append(inputs[3].step))
    steps: list[int] = []

    def spoil(gradient: Tensor) -> Tensor:
        if steps[-1] == BAD_STEP - 1:
            gradient = gradient.clone()
            gradient.view(-1)[0] = value
        return gradient

    parameter.register_hook(spoil)


def run_to_the_fault(trainer: Trainer) -> tuple[list[StepRecord], dict[str, Tensor], TrainingDiverged]:
    """The records before the fault, the state before it, and the error."""
    records, before = [], {}
    with pytest.raises(TrainingDiverged) as caught:  # noqa: PT012
        for record in trainer.run():
            assert isinstance(record, StepRecord)
            records.append(record)
            before = state_of(trainer)
    return records, before, caught.value


@pytest.mark.parametrize("on_host", [True, False], ids=["host", "device"])
@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *(
            (name, fault)
            for name in ("sgd", "adamw")
            for fault in ("loss", "input", "nan gradient", "inf gradient")
        ),
        ("pieces", "loss"),
    ],
)
def test_the_state_is_that_of_the_step_before(name: str, on_host: bool, fault: str, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, SECTIONS[name], on_host=on_host)
    if fault in ("loss", "input"):
        trainer.task.__class__ = {"loss": BadLoss, "input": BadInput}[fault]
    else:
        plant_gradient(trainer, math.nan if fault == "nan gradient" else math.inf)
    records, before, error = run_to_the_fault(trainer)
    assert [record.step for record in records] == [1, 2]
    assert f"Step {BAD_STEP} (epoch 0): the {'gradient' if 'gradient' in fault else 'loss term'}" in str(error)
    after = state_of(trainer)
    assert set(after) >= set(before)
    assert [key for key, value in before.items() if not torch.equal(value, after[key])] == []
    assert all(value.isfinite().all() for value in after.values())


@pytest.mark.parametrize("fault", ["loss", "gradient"])
def test_found_several_steps_later_the_state_is_still_that_of_the_step_before(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, whose numbers are fetched for many steps at once."""
    healthy = make_trainer(tmp_path / "healthy", SECTIONS["adamw"])
    states = [state_of(healthy) for _ in healthy.run()]
    monkeypatch.setattr("dskd_compress.training.loop._STEPS_PER_FETCH", {"cpu": 20})
    trainer = make_trainer(tmp_path / "bad", SECTIONS["adamw"], on_host=False)
    if fault == "loss":
        trainer.task.__class__ = BadLoss
    else:
        plant_gradient(trainer, math.nan)
    with pytest.raises(TrainingDiverged, match=f"Step {BAD_STEP} "):
        list(trainer.run())
    assert trainer.progress.step == 5
    after = state_of(trainer)
    assert [key for key, value in states[BAD_STEP - 2].items() if not torch.equal(value, after[key])] == []


@pytest.mark.parametrize("name", SECTIONS)
def test_a_finite_training_is_bit_for_bit_the_same_either_way(name: str, tmp_path: Path) -> None:
    ends = []
    for on_host in (True, False):
        trainer = make_trainer(tmp_path / str(on_host), SECTIONS[name], KdMethod(), on_host)
        records = [r.losses for r in trainer.run() if isinstance(r, StepRecord)]
        ends.append((records, state_of(trainer)))
    assert ends[0][0] == ends[1][0]
    assert all(torch.equal(value, ends[1][1][key]) for key, value in ends[0][1].items())


def test_the_loss_scaler_skips_the_step_and_trains_on(tmp_path: Path) -> None:
    """A gradient beyond the range of fp16 is an everyday matter there; a loss that is NaN is not."""
    trainer = make_trainer(tmp_path, SECTIONS["sgd"])
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    plant_gradient(trainer, math.inf)
    states = []
    for record in trainer.run():
        states.append(state_of(trainer))
        assert not isinstance(record, StepRecord) or (record.grad_norm is None) == (record.step == BAD_STEP)
    weights = [[v for k, v in state.items() if k.endswith("weight") and "module" in k] for state in states]
    assert all(map(torch.equal, weights[BAD_STEP - 2], weights[BAD_STEP - 1]))
    assert not all(map(torch.equal, weights[BAD_STEP - 1], weights[BAD_STEP]))
    assert trainer.scaler.get_scale() == 1.0


def test_the_loss_scaler_keeps_a_bad_loss_from_the_weights(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, SECTIONS["pieces"])
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    trainer.task.__class__ = BadLoss
    _, before, _ = run_to_the_fault(trainer)
    after = state_of(trainer)
    parameters = [f"module.{name}" for name, _ in trainer.task.module.named_parameters()]
    assert all(torch.equal(before[name], after[name]) for name in parameters)


def test_a_finite_loss_keeps_its_gradient_and_another_makes_every_gradient_nan() -> None:
    weight = torch.tensor([3.0, -2.0], requires_grad=True)
    for loss, expected in ((weight.square().sum(), [6.0, -4.0]), (weight.sum() + math.inf, [math.nan, math.nan])):
        (gradient,) = torch.autograd.grad(spread_nonfinite(loss), weight)
        torch.testing.assert_close(gradient, torch.tensor(expected), equal_nan=True)


def test_held_tensors_of_any_type_and_layout_come_back() -> None:
    tensors = [
        torch.randn(2, 3, 4, 5),
        torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        torch.randn(6, 4).T,
        torch.tensor(7),
        torch.randn(3).bfloat16(),
        torch.randn(8, 64, 16, 16, dtype=torch.float64).contiguous(memory_format=torch.channels_last),
        torch.randn(0),
    ]
    expected = [tensor.clone() for tensor in tensors]
    held = HeldTensors(tensors)
    held.hold()
    for finite, changed in ((True, True), (False, False)):
        for tensor in tensors:
            tensor.add_(1)
        held.restore_unless(torch.tensor(finite))
        assert [torch.equal(a, b) for a, b in zip(tensors, expected, strict=True)] == [not changed] * 6 + [True]
