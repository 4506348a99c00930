"""The training loop: a generator of records, so that logging and display stay outside.

Everything random in a step is seeded by (seed, step), and the order and augmentation of images by
(seed, epoch, image), so a run that was stopped ends as if it had not been.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dskd_compress.config import TrainSection
from dskd_compress.methods.base import WATCH_EVERY, MethodTask
from dskd_compress.training.checkpoint import CheckpointStore, Progress
from dskd_compress.training.device import autocast
from dskd_compress.training.optim import create_optimization
from dskd_compress.training.signals import StopRequest
from dskd_export.documents import Accuracy, EpochRecord, StepRecord
from dskd_export.errors import Interrupted, TrainingDiverged

# Reading a number from a GPU waits for it; so many steps are read together.
_STEPS_PER_READ = {"cpu": 1, "cuda": 20}


class EpochLoader(Protocol):
    """Training batches: the same for the same seed, epoch and position."""

    def __len__(self) -> int: ...

    def epoch(self, epoch: int, skip_batches: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch, from number `skip_batches` on."""
        ...


def step_seed(seed: int, step: int) -> int:
    """Seed of all noise of one step: depends on nothing else, so a resumed run draws the same."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=8).digest(), "big") >> 1


class Trainer:
    """One training of one task.

    Args:
        task: student, method and teacher, on their device.
        loader: training batches on that device.
        validate: the student in eval form -> accuracy and loss on the validation set.
        section: how to train.
        seed: of all randomness within a step.
        store: where checkpoints go.
    """

    def __init__(
        self,
        task: MethodTask,
        loader: EpochLoader,
        validate: Callable[[nn.Module], tuple[Accuracy, float]],
        section: TrainSection,
        *,
        seed: int,
        store: CheckpointStore,
    ) -> None:
        self.task, self.loader, self.validate = task, loader, validate
        self.section, self.seed, self.store = section, seed, store
        self.device = task.device
        self.autocast = autocast(section, self.device)
        self.optimization = create_optimization(task.module, section, len(loader))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=section.precision == "fp16")
        if section.ema_decay is not None:
            task.setup_ema(decay=section.ema_decay, use_warmup=True)
        self.progress = Progress()
        self.total_steps = section.epochs * len(loader)
        self._pending: list[dict[str, Any]] = []

    def resume(self) -> bool:
        """Go on from the last checkpoint of the same settings; False where there is none."""
        found = self.store.load(self.device)
        if found is None:
            return False
        self.progress, state = found
        if self.progress.best_epoch >= 0:
            self.store.load_best()  # where it cannot be had, that is better known now than at the end
        self.task.module.load_state_dict(state["module"])
        if state["ema"] is not None:
            self.task.get_trainable_module(ema=True).module.load_state_dict(state["ema"])
        self.optimization.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        return True

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        ema = self.task.get_trainable_module(ema=True)
        self.store.save(
            self.progress,
            {
                "module": self.task.module.state_dict(),
                "ema": None if ema is None else ema.module.state_dict(),
                "optimizer": self.optimization.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
            },
        )

    @property
    def student(self) -> nn.Module:
        """What is evaluated and kept: the weight average where there is one."""
        return self.task.get_eval_model(ema=self.task.has_ema())

    def run(self) -> Iterator[StepRecord | EpochRecord]:
        """Train to the end, yielding a record for each step and each epoch.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the state was saved.
            TrainingDiverged: a loss is NaN or Inf; the last checkpoint is from before it.
        """
        with StopRequest() as stop:
            for epoch in range(self.progress.epoch, self.section.epochs):
                epoch_began = time.perf_counter()
                yield from self._train_epoch(epoch, stop)
                yield self._finish_epoch(epoch, epoch_began)
                # Once the caller has logged it: a kill in between repeats the epoch's end, and loses no record.
                self.save()
                self._stop_if_requested(stop)

    def _train_epoch(self, epoch: int, stop: StopRequest) -> Iterator[StepRecord]:
        self.task.train()
        if self.progress.batch == 0:
            self.progress.epoch_loss_sum = 0.0
        began = time.perf_counter()
        read_every = _STEPS_PER_READ.get(self.device.type, 1)
        for images_BCHW, target in self.loader.epoch(epoch, skip_batches=self.progress.batch):
            self._pending.append(self._step(images_BCHW, target))
            self.progress.batch += 1
            save = (
                self.section.checkpoint_steps is not None
                and self.progress.step % self.section.checkpoint_steps == 0
            )
            if len(self._pending) >= read_every or save or stop.requested:
                yield from self._read_pending(epoch, began)
                began = time.perf_counter()
            if save:
                self.save()
            self._stop_if_requested(stop)
        yield from self._read_pending(epoch, began)

    def _step(self, images_BCHW: Tensor, target: Tensor) -> dict[str, Any]:
        """One optimisation step; returns numbers that are still on the device."""
        torch.manual_seed(step_seed(self.seed, self.progress.step))
        learning_rate = self.optimization.set_step(self.progress.step)
        self.task.progress = self.progress.step / self.total_steps
        self.task.module.watching = self.progress.step % WATCH_EVERY == 0
        if self.section.channels_last:
            images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
        with self.autocast:
            result = self.task(images_BCHW, target)
        optimizer = self.optimization.optimizer
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(result["loss"]).backward()
        self.scaler.unscale_(optimizer)
        # Student and training-only heads together: a projection that escapes the clipping can ruin both.
        parameters = list(self.task.module.parameters())
        limit = self.section.clip_grad if self.section.clip_grad is not None else math.inf
        grad_norm = nn.utils.clip_grad_norm_(parameters, limit)
        self.scaler.step(optimizer)
        self.scaler.update()
        self.progress.step += 1
        self.task.update_ema(step=self.progress.step)
        return {
            "images": images_BCHW.shape[0],
            "learning_rate": learning_rate,
            "grad_norm": grad_norm,
            "loss": result["loss"].detach(),
            "terms": {name: term.detach() for name, term in result["terms"].items()},
            "monitors": result["monitors"],
        }

    def _read_pending(self, epoch: int, began: float) -> Iterator[StepRecord]:
        """Turn the steps since the last reading into records, and look for NaN and Inf."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        records = []
        first = self.progress.step - len(pending) + 1
        for offset, numbers in enumerate(pending):
            losses = {"loss": float(numbers["loss"])} | {k: float(v) for k, v in numbers["terms"].items()}
            self._refuse_nonfinite(losses, first + offset, epoch)
            norm = float(numbers["grad_norm"])
            self.progress.epoch_loss_sum += losses["loss"]
            records.append((numbers, losses, norm, {k: float(v) for k, v in numbers["monitors"].items()}))
        seconds = time.perf_counter() - began
        images = sum(numbers["images"] for numbers in pending)
        self.progress.train_seconds += seconds
        self.progress.train_images += images
        for offset, (numbers, losses, norm, monitors) in enumerate(records):
            yield StepRecord(
                step=first + offset,
                epoch=epoch,
                losses=losses,
                grad_norm=norm if math.isfinite(norm) else None,  # fp16: the scaler skips such a step
                learning_rate=numbers["learning_rate"],
                images_per_s=images / seconds,
                monitors=monitors,
            )

    def _refuse_nonfinite(self, losses: dict[str, float], step: int, epoch: int) -> None:
        bad = [name for name, value in losses.items() if name != "loss" and not math.isfinite(value)]
        if not bad and math.isfinite(losses["loss"]):
            return
        value = losses[bad[0]] if bad else losses["loss"]
        kept = (
            f"The last good checkpoint is {self.store.last_path}."
            if self.store.last_path.exists()
            else "There is no checkpoint from before it."
        )
        raise TrainingDiverged(
            f"Step {step} (epoch {epoch}): the loss term '{(bad or ['loss'])[0]}' is {value}. {kept}",
            "Lower train.lr, set train.clip_grad, or use train.precision fp32.",
        )

    def _finish_epoch(self, epoch: int, began: float) -> EpochRecord:
        accuracy, val_loss = self.validate(self.student)
        best = self.progress.best_epoch < 0 or accuracy.top1.value > self.progress.best["top1"]["value"]
        if best:
            self.store.save_best(self.student)
            self.progress.best_epoch, self.progress.best = epoch, accuracy.model_dump()
        record = EpochRecord(
            epoch=epoch,
            step=self.progress.step,
            train_loss=self.progress.epoch_loss_sum / max(1, self.progress.batch),
            val_loss=val_loss,
            top1=accuracy.top1.value,
            top5=None if accuracy.top5 is None else accuracy.top5.value,
            best=best,
            seconds=time.perf_counter() - began,
        )
        self.progress.last = accuracy.model_dump()
        self.progress.epoch, self.progress.batch = epoch + 1, 0
        return record

    def _stop_if_requested(self, stop: StopRequest) -> None:
        if stop.requested is None or self.progress.step >= self.total_steps:
            return
        self.save()
        raise Interrupted(
            f"Stopped by {stop.requested} after step {self.progress.step} of {self.total_steps}; "
            f"the state is in {self.store.last_path}.",
            "The same command goes on from there.",
        )
