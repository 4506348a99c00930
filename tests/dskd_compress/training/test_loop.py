"""The loop on real digits: exact resume, clean stops, and refusal to go on with nonsense."""

from __future__ import annotations

import math
import os
import signal
from itertools import islice
from pathlib import Path

import pytest
import torch
from support import make_pair
from torch import Tensor

from dskd_compress.config import (
    AugmentSection,
    DataSection,
    DskdMethod,
    KdMethod,
    Method,
    NoneMethod,
    TrainSection,
)
from dskd_compress.data import TrainLoader, ValLoader, open_data
from dskd_compress.methods import create_task
from dskd_compress.methods.base import OUTSIDE, MethodTask, StepContext
from dskd_compress.training.checkpoint import CheckpointStore
from dskd_compress.training.evaluate import evaluate_model
from dskd_compress.training.loop import Trainer
from dskd_export.documents.training import EpochRecord, StepRecord
from dskd_export.errors import (
    CheckpointError,
    EnvironmentProblem,
    Interrupted,
    ModelError,
    RecipeError,
    TrainingDiverged,
)

CPU = torch.device("cpu")
DATA = DataSection(input_size=32, workers=0, val_fraction=0.9, augment=AugmentSection(hflip=0.0, scale=(0.6, 1.0)))
SECTION = TrainSection(epochs=2, batch_size=32, lr=0.02, ema_decay=0.9, label_smoothing=0.1)
METHOD = DskdMethod(stats_batches=2, start="sdedit")  # noise in the sampler: resume has to draw the same


def make_trainer(
    folder: Path,
    method: Method = METHOD,
    section: TrainSection = SECTION,
    settings: str = "one",
    pair_names: tuple[str, str] = ("test_efficientnet", "test_resnet"),
) -> Trainer:
    pair = make_pair(*pair_names, size=32)
    sets = open_data(DATA, 0)
    task = create_task(
        method,
        pair.student,
        None if isinstance(method, NoneMethod) else pair,
        label_smoothing=section.label_smoothing,
        seed=0,
        device=CPU,
    )
    loader = TrainLoader(sets, DATA, pair.student_format, batch_size=section.batch_size, seed=0, device=CPU)
    validation = ValLoader(sets, pair.student_format, batch_size=256, device=CPU, workers=0)
    trainer = Trainer(
        task,
        loader,
        lambda model: evaluate_model(model, islice(validation, 1)),
        section,
        seed=0,
        store=CheckpointStore(folder, settings),
    )
    if not trainer.resume():
        task.fit_statistics(images for images, _ in [next(iter(loader.epoch(-1)))])
    return trainer


def train_to(trainer: Trainer, step: int) -> None:
    """Train up to a step and save there."""
    for record in trainer.run():
        if isinstance(record, StepRecord) and record.step == step:
            trainer.save()
            break


def states(trainer: Trainer) -> dict[str, Tensor]:
    student = trainer.task.module.state_dict()
    average = trainer.task.get_trainable_module(ema=True)
    if average is None:
        return student
    return {**student, **{f"ema.{name}": value for name, value in average.module.state_dict().items()}}


def without_times(record: StepRecord | EpochRecord) -> dict[str, object]:
    return record.model_dump(exclude={"images_per_s", "data_wait", "seconds"})


@pytest.mark.parametrize("stop_after", [2, 5])
def test_a_stopped_run_ends_bit_for_bit_as_if_it_had_not_been(stop_after: int, tmp_path: Path) -> None:
    """Stopped by SIGTERM within the first epoch, and at its end (a run has two epochs of five steps)."""
    whole = make_trainer(tmp_path / "whole")
    expected = list(whole.run())

    before: list[StepRecord | EpochRecord] = []
    stopped = make_trainer(tmp_path / "stopped")

    def run_and_stop() -> None:
        for record in stopped.run():
            before.append(record)
            if isinstance(record, StepRecord) and record.step == stop_after:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match=rf"SIGTERM after step {stop_after} of 10"):
        run_and_stop()
    resumed = make_trainer(tmp_path / "stopped")
    after = list(resumed.run())

    assert [without_times(r) for r in before + after] == [without_times(r) for r in expected]
    found = states(resumed)
    assert all(torch.equal(value, found[name]) for name, value in states(whole).items())
    assert resumed.progress.best_epoch == whole.progress.best_epoch
    best, found = (trainer.store.load_best(trainer.progress.best_epoch) for trainer in (whole, resumed))
    assert all(torch.equal(value, best[name]) for name, value in found.items())


def test_signals_are_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    list(make_trainer(tmp_path, NoneMethod(), TrainSection(epochs=1, batch_size=64)).run())
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_records_of_a_run(tmp_path: Path) -> None:
    records = list(make_trainer(tmp_path, KdMethod()).run())
    steps = [record for record in records if isinstance(record, StepRecord)]
    epochs = [record for record in records if isinstance(record, EpochRecord)]
    assert [record.step for record in steps] == list(range(1, 11))
    assert [record.step for record in epochs] == [5, 10]
    assert set(steps[0].losses) == {"loss", "ce", "kd"}
    for record in steps:
        assert record.losses["loss"] == pytest.approx(record.losses["ce"] + record.losses["kd"], rel=1e-5)
        assert record.grad_norm is not None
        assert record.grad_norm > 0
    mean = sum(record.losses["loss"] for record in steps[:5]) / 5
    assert epochs[0].train_loss == pytest.approx(mean)
    assert epochs[0].best
    rates = [record.learning_rate for record in steps]
    assert rates[0] == pytest.approx(0.02)
    assert rates == sorted(rates, reverse=True)


def test_costly_monitors_are_watched_every_tenth_step(tmp_path: Path) -> None:
    section = SECTION.model_copy(update={"epochs": 3})
    steps = [r for r in make_trainer(tmp_path, METHOD, section).run() if isinstance(r, StepRecord)]
    assert len(steps) == 15
    watched = [step.step for step in steps if "head_agrees_on_denoised" in step.monitors]
    assert watched == [1, 11]


def test_the_cosine_is_the_published_one(tmp_path: Path) -> None:
    """SGDR (arXiv 1608.03983), equation 5, without restarts."""
    steps = [r for r in make_trainer(tmp_path, NoneMethod()).run() if isinstance(r, StepRecord)]
    expected = [0.02 * (1 + math.cos(math.pi * k / 10)) / 2 for k in range(10)]
    assert [record.learning_rate for record in steps] == pytest.approx(expected)


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bf16"},
        {"channels_last": True, "optimizer": "adamw", "lr": 1e-3},
        {"clip_grad": None, "ema_decay": None, "warmup_epochs": 1},
        {"checkpoint_steps": 2},
        {"scheduler": "multistep", "milestones": (1,)},
        {"scheduler": "constant"},
    ],
)
def test_every_setting_trains(change: dict[str, object], tmp_path: Path) -> None:
    section = TrainSection.model_validate({**SECTION.model_dump(), **change})
    trainer = make_trainer(tmp_path, section=section)
    records = list(trainer.run())
    assert all(math.isfinite(r.losses["loss"]) for r in records if isinstance(r, StepRecord))
    assert trainer.progress.step == 10


class Diverging(MethodTask):
    """A term that becomes NaN at the third step."""

    def forward(self, input: Tensor, target: Tensor, context: StepContext = OUTSIDE) -> dict[str, object]:
        result = super().forward(input, target, context)
        if context.progress >= 0.2:
            result["terms"]["kd"] = result["terms"]["kd"] * math.nan
            result["loss"] = result["loss"] * math.nan
        return result


def test_nan_stops_with_step_term_and_checkpoint(tmp_path: Path) -> None:
    section = TrainSection.model_validate({**SECTION.model_dump(), "checkpoint_steps": 1})
    trainer = make_trainer(tmp_path, KdMethod(), section)
    trainer.task.__class__ = Diverging
    with pytest.raises(TrainingDiverged, match=r"Step 3 \(epoch 0\): the loss term 'kd' is nan.*last\.pt"):
        list(trainer.run())
    kept = CheckpointStore(tmp_path, "one").load(CPU)
    assert kept is not None
    assert kept[0].step == 2
    assert all(torch.isfinite(value).all() for value in kept[1]["module"].values())


def test_a_checkpoint_of_other_settings_is_not_continued(tmp_path: Path) -> None:
    list(make_trainer(tmp_path, NoneMethod()).run())
    assert make_trainer(tmp_path, NoneMethod(), settings="two").progress.step == 0


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"half a checkpoint")
    with pytest.raises(CheckpointError, match=r"last\.pt is damaged"):
        make_trainer(tmp_path, NoneMethod())


def test_checkpoints_hold_no_code(tmp_path: Path) -> None:
    list(make_trainer(tmp_path).run())
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2
    for name in names:
        torch.load(tmp_path / name, weights_only=True)


def test_the_gradient_is_clipped_over_student_and_heads_together(tmp_path: Path) -> None:
    section = TrainSection.model_validate({**SECTION.model_dump(), "clip_grad": 1e-3})
    trainer = make_trainer(tmp_path, section=section)
    next(trainer.run())
    squares = [parameter.grad.square().sum() for parameter in trainer.task.module.parameters()]  # type: ignore[union-attr]
    assert torch.stack(squares).sum().sqrt().item() == pytest.approx(1e-3, rel=1e-2)


def test_the_hook_sees_gradients_before_they_are_clipped_and_the_position(tmp_path: Path) -> None:
    section = TrainSection.model_validate({**SECTION.model_dump(), "clip_grad": 1e-3})
    trainer = make_trainer(tmp_path, section=section)
    seen: list[tuple[int, tuple[int, int] | None, float]] = []

    def record(context: StepContext) -> None:
        squares = [p.grad.square().sum() for p in trainer.task.module.parameters()]  # type: ignore[union-attr]
        seen.append((context.step, context.position, torch.stack(squares).sum().sqrt().item()))

    trainer.after_backward = record
    steps = [record for record in trainer.run() if isinstance(record, StepRecord)]
    assert [(step, position) for step, position, _ in seen] == [(k, divmod(k, 5)) for k in range(10)]
    assert [norm for _, _, norm in seen] == pytest.approx([record.grad_norm for record in steps], rel=1e-5)


PIECES = ["none", "kd", "dskd"]


@pytest.mark.parametrize("name", PIECES)
def test_pieces_of_a_step_add_up_to_the_whole(name: str, tmp_path: Path) -> None:
    """Where nothing is taken over the batch; every row of noise is that of the whole batch too."""
    # An untrained teacher's features hardly differ: standardised, they are its rounding errors made large.
    dskd = METHOD.model_copy(
        update={"start_scale": "own", "tap": "vector", "feature_norm": "none", "logit_loss": "kl"}
    )
    method: Method = {"none": NoneMethod(), "kd": KdMethod(), "dskd": dskd}[name]
    section = TrainSection.model_validate({**SECTION.model_dump(), "epochs": 1, "lr": 1e-3})
    runs = []
    for pieces in (1, 4):
        changed = section.model_copy(update={"grad_accumulation": pieces})
        trainer = make_trainer(
            tmp_path / str(pieces), method, changed, pair_names=("test_convnext", "test_resnet")
        )
        rows: list[tuple[int, ...] | None] = []
        real = trainer.task.forward
        trainer.task.forward = lambda *a, real=real, rows=rows: (  # type: ignore[method-assign]
            rows.append(a[2].rows),
            real(*a),
        )[1]
        steps = [record for record in trainer.run() if isinstance(record, StepRecord)]
        assert len(rows) == 5 * pieces
        assert [row for piece in rows[:pieces] for row in piece or []] == list(range(32))
        runs.append((steps, states(trainer)))
    (whole, state), (added, state_added) = runs
    for one, four in zip(whole, added, strict=True):
        assert four.losses == pytest.approx(one.losses, rel=1e-5, abs=1e-6)
        assert four.grad_norm == pytest.approx(one.grad_norm, rel=1e-4)
    for key, value in state.items():
        torch.testing.assert_close(state_added[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "adamw", "lr": 1e-3},
        {"optimizer": "nadamw", "lr": 1e-3},
        {"precision": "bf16", "channels_last": True, "grad_accumulation": 2},
        {"grad_checkpointing": True, "scheduler": "step", "decay_epochs": 1},
    ],
    ids=str,
)
def test_every_setting_resumes_bit_for_bit(change: dict[str, object], tmp_path: Path) -> None:
    """The method is simple, the state is not: optimisers, averages, layouts, number formats."""
    base = {**SECTION.model_dump(), "epochs": 2, "warmup_epochs": 1, "clip_grad": 1.0}
    section = TrainSection.model_validate({**base, **change})

    def trainer_in(folder: Path) -> Trainer:
        return make_trainer(folder, NoneMethod(), section)

    whole = trainer_in(tmp_path / "whole")
    expected = list(whole.run())
    stopped = trainer_in(tmp_path / "stopped")
    train_to(stopped, 3)
    resumed = trainer_in(tmp_path / "stopped")
    assert resumed.progress.step == 3
    after = list(resumed.run())
    assert [without_times(r) for r in after] == [without_times(r) for r in expected[3:]]
    found = states(resumed)
    assert all(torch.equal(value, found[name]) for name, value in states(whole).items())


def test_the_loss_scaler_resumes(tmp_path: Path) -> None:
    """On the CPU fp16 is refused, but the scaler itself works there: its scale doubles every two steps."""

    def trainer_in(folder: Path) -> Trainer:
        trainer = make_trainer(folder, NoneMethod())
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0, growth_interval=2)
        trainer.resume()
        return trainer

    whole = trainer_in(tmp_path / "whole")
    expected = list(whole.run())
    assert whole.scaler.get_scale() == 2.0 * 2**5
    stopped = trainer_in(tmp_path / "stopped")
    train_to(stopped, 3)
    resumed = trainer_in(tmp_path / "stopped")
    assert resumed.scaler.get_scale() == 4.0
    assert [without_times(r) for r in resumed.run()] == [without_times(r) for r in expected[3:]]
    assert resumed.scaler.get_scale() == whole.scaler.get_scale()


def test_what_was_left_out_before_a_stop_is_still_known(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, NoneMethod())
    trainer.loader.skipped.append("train/3/broken.png")
    next(trainer.run())
    trainer.save()
    assert make_trainer(tmp_path, NoneMethod()).progress.skipped == ["train/3/broken.png"]


def test_recomputed_activations_give_the_same_gradients(tmp_path: Path) -> None:
    section = TrainSection.model_validate({**SECTION.model_dump(), "epochs": 1})
    runs = []
    for recompute in (False, True):
        changed = section.model_copy(update={"grad_checkpointing": recompute})
        trainer = make_trainer(
            tmp_path / str(recompute), KdMethod(), changed, pair_names=("test_convnext", "test_resnet")
        )
        runs.append([record.losses for record in trainer.run() if isinstance(record, StepRecord)])
    assert runs[0] == runs[1]


def test_a_student_that_cannot_recompute_is_named(tmp_path: Path) -> None:
    section = TrainSection.model_validate({**SECTION.model_dump(), "grad_checkpointing": True})
    with pytest.raises(ModelError, match=r"train\.grad_checkpointing.*dla34"):
        make_trainer(tmp_path, NoneMethod(), section, pair_names=("dla34", "test_resnet"))


@pytest.mark.slow
@pytest.mark.parametrize("name", PIECES)
def test_compiled_is_the_same_training(name: str, tmp_path: Path) -> None:
    method: Method = {"none": NoneMethod(), "kd": KdMethod(), "dskd": METHOD}[name]
    section = TrainSection.model_validate({**SECTION.model_dump(), "lr": 1e-3})
    runs = []
    for compiled in (False, True):
        torch._dynamo.utils.counters.clear()
        trainer = make_trainer(
            tmp_path / str(compiled),
            method,
            section.model_copy(update={"compile": compiled}),
            pair_names=("test_convnext", "test_resnet"),
        )
        runs.append([record.losses for record in trainer.run() if isinstance(record, StepRecord)])
        assert bool(torch._dynamo.utils.counters["stats"]["unique_graphs"]) == compiled
        assert not any("._orig_mod" in name for name in trainer.task.module.state_dict())
    for one, other in zip(*runs, strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-5)


def test_an_unknown_optimizer_lists_those_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no optimizer 'sdg'.*adamw"):
        make_trainer(tmp_path, NoneMethod(), TrainSection(optimizer="sdg"))


def test_fp16_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="fp16 needs a CUDA device"):
        make_trainer(tmp_path, NoneMethod(), TrainSection(precision="fp16"))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_trains_on_the_gpu(precision: str, tmp_path: Path) -> None:
    pair = make_pair("test_efficientnet", "test_resnet", size=32)
    device = torch.device("cuda:0")
    section = TrainSection(epochs=2, batch_size=32, precision=precision, channels_last=True)  # type: ignore[arg-type]
    sets = open_data(DATA, 0)
    task = create_task(METHOD, pair.student, pair, label_smoothing=0.0, seed=0, device=device)
    loader = TrainLoader(sets, DATA, pair.student_format, batch_size=32, seed=0, device=device)
    validation = ValLoader(sets, pair.student_format, batch_size=256, device=device, workers=0)
    store = CheckpointStore(tmp_path, "one")
    trainer = Trainer(task, loader, lambda m: evaluate_model(m, validation), section, seed=0, store=store)
    assert sum(isinstance(record, StepRecord) for record in trainer.run()) == 10


def test_validation_every_few_epochs(tmp_path: Path) -> None:
    section = SECTION.model_copy(update={"epochs": 3, "validate_every": 2})
    records = list(make_trainer(tmp_path, NoneMethod(), section).run())
    assert [record.epoch for record in records if isinstance(record, EpochRecord)] == [1, 2]
    assert [record.epoch for record in records if isinstance(record, StepRecord)] == [0] * 5 + [1] * 5 + [2] * 5
    means = [r.train_loss for r in records if isinstance(r, EpochRecord)]
    last = [r.losses["loss"] for r in records if isinstance(r, StepRecord) and r.epoch == 2]
    assert means[1] == pytest.approx(sum(last) / 5)  # of its own epoch, not of those since the last look
