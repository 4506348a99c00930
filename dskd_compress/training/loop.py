"""The training loop: a generator of records, so that logging and display stay outside.

Everything random in a step is seeded by (seed, step), and the order and augmentation of images by
(seed, epoch, image), so a resumed run ends bit for bit like an uninterrupted one. Several processes take
equal shards of each batch, and process them in `train.grad_accumulation` micro-batches.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dskd_compress.config import TrainSection
from dskd_compress.data import BatchShard, TrainLoader
from dskd_compress.data.randomness import mix_step_seed
from dskd_compress.launch import ProcessRank
from dskd_compress.methods.base import MONITOR_EVERY, MethodTask, StepContext
from dskd_compress.models import recompute_activations
from dskd_compress.training.checkpoint import CheckpointStore, Progress
from dskd_compress.training.device import autocast
from dskd_compress.training.distributed import Group
from dskd_compress.training.guard import UpdateGuard, spread_nonfinite
from dskd_compress.training.optim import create_optimization
from dskd_compress.training.signals import StopRequest
from dskd_compress.training.step_values import DeviceStep, StepValues, fetch
from dskd_compress.training.waiting import WaitClock
from dskd_export.documents.base import Accuracy
from dskd_export.documents.training import EpochRecord, StepRecord
from dskd_export.errors import EnvironmentProblem, Interrupted, TrainingDiverged

# Fetching a number from a GPU waits for it, so the numbers of several steps are fetched together.
_STEPS_PER_FETCH = {"cpu": 1, "cuda": 20}


class Trainer:
    """One training of one task.

    Args:
        loader: training batches on that device.
        validate: the student in eval form -> accuracy and loss on the validation set.
        seed: of all randomness within a step.
        group: the processes that train together; None: only this one. The main process validates and saves.
        after_backward: called with the step's context once the gradients are there, unscaled and not yet
            clipped; it changes nothing.

    Raises:
        ModelError: `train.grad_checkpointing` with a student that has none.
    """

    def __init__(
        self,
        task: MethodTask,
        loader: TrainLoader,
        validate: Callable[[nn.Module], tuple[Accuracy, float]],
        section: TrainSection,
        *,
        seed: int,
        store: CheckpointStore,
        group: Group | None = None,
        after_backward: Callable[[StepContext], None] | None = None,
    ) -> None:
        self.task, self.loader, self.validate = task, loader, validate
        self.section, self.seed, self.store = section, seed, store
        self.after_backward = after_backward
        self.device = task.device
        self.group = group if group is not None else Group(ProcessRank(), self.device)
        self.autocast = autocast(section, self.device)
        if section.grad_checkpointing:
            recompute_activations(task.module.student)
        if section.freeze_batch_norm:
            task.module.freeze_batch_norm()
        self.group.synchronise_batch_norm(task.module)
        self.optimization = create_optimization(task.module, section, len(loader))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=section.precision == "fp16")
        if section.ema_decay is not None:
            task.setup_ema(decay=section.ema_decay, use_warmup=True)
        self.progress = Progress()
        self.total_steps = section.epochs * len(loader)
        shard = BatchShard(self.group.process.rank, self.group.process.world_size)
        self._rows: tuple[int, ...] = tuple(shard.rows(section.batch_size).tolist())
        self._guard = UpdateGuard(task, self.optimization.optimizer)
        self._pending: list[DeviceStep] = []
        self._agreed_to_stop = False
        self._waiting = WaitClock()

    def resume(self) -> bool:
        """Resume from the last good checkpoint of the same settings; False where there is none.

        Raises:
            CheckpointError: there are only damaged ones.
            EnvironmentProblem: the processes do not see the same checkpoint.
        """
        found = self.store.load(self.device)
        steps = self.group.all_gather_object(0 if found is None else found[0].step)
        if len(set(steps)) > 1:
            raise EnvironmentProblem(
                f"The processes find different checkpoints in {self.store.folder}: of the steps {steps}.",
                "Put the run folder (--out) on a file system that all machines share.",
            )
        if found is None:
            return False
        self.progress, state = found
        self.task.module.load_state_dict(state["module"])
        if state["ema"] is not None:
            self.task.get_trainable_module(ema=True).module.load_state_dict(state["ema"])
        self.optimization.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        return True

    def save(self) -> None:
        """Write a checkpoint."""
        skipped = [name for names in self.group.all_gather_object(self.loader.skipped) for name in names]
        self.progress.skipped = sorted({*self.progress.skipped, *skipped})
        if not self.group.is_main:
            return
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
        """The model that is evaluated and kept: the weight average where there is one."""
        return self.task.get_eval_model(ema=self.task.has_ema())

    def run(self) -> Iterator[StepRecord | EpochRecord]:
        """Train to the end, yielding a record for each step and each epoch.

        Raises:
            Interrupted: SIGINT or SIGTERM came to any of the processes; the state was saved.
            TrainingDiverged: a loss or gradient is NaN or Inf; weights and last checkpoint are from before it.
        """
        # Last, so that state and averages are those of the bare modules.
        if self.section.compile:
            self.task.compile()
        with self.group.distribute(self.task), StopRequest() as stop:
            for epoch in range(self.progress.epoch, self.section.epochs):
                epoch_began = time.perf_counter()
                yield from self._train_epoch(epoch, stop)
                if (epoch + 1) % self.section.validate_every == 0 or epoch + 1 == self.section.epochs:
                    yield self._validate(epoch, epoch_began)
                self.progress.epoch, self.progress.batch = epoch + 1, 0
                # Once the caller has logged it: a kill in between repeats the epoch's end, and loses no record.
                self.save()
                self._stop_if_requested(stop)

    def _train_epoch(self, epoch: int, stop: StopRequest) -> Iterator[StepRecord]:
        self.task.train()
        if self.progress.batch == 0:
            self.progress.epoch_loss_sum = 0.0
        began = time.perf_counter()
        fetch_every = _STEPS_PER_FETCH.get(self.device.type, 1)
        for images_BCHW, target in self._waiting.watch(self.loader.epoch(epoch, skip_batches=self.progress.batch)):
            self._pending.append(self._step(epoch, images_BCHW, target))
            self.progress.batch += 1
            save = (
                self.section.checkpoint_steps is not None
                and self.progress.step % self.section.checkpoint_steps == 0
            )
            # All processes fetch after the same steps: a signal to one of them waits for that.
            wanted = self.group.is_single and stop.requested is not None
            if len(self._pending) >= fetch_every or save or wanted:
                yield from self._fetch_pending(epoch, began, stop)
                began = time.perf_counter()
            if save:
                self.save()
            self._stop_if_requested(stop)
        yield from self._fetch_pending(epoch, began, stop)

    def _step(self, epoch: int, images_BCHW: Tensor, target: Tensor) -> DeviceStep:
        """Take one optimisation step; returns numbers that are still on the device."""
        step = self.progress.step
        learning_rate = self.optimization.set_step(step)
        context = StepContext(
            step,
            step / self.total_steps,
            (epoch, self.progress.batch),
            self._rows,
            mix_step_seed(self.seed, step),
            step % MONITOR_EVERY == 0,
        )
        if self.section.channels_last:
            images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
        optimizer = self.optimization.optimizer
        optimizer.zero_grad(set_to_none=True)
        self._guard.hold_statistics()
        results = self._forward_and_backward(context, images_BCHW, target)
        self.scaler.unscale_(optimizer)
        if self.after_backward is not None:
            self.after_backward(context)
        # Student and training-only heads together: a projection that escapes the clipping can ruin both.
        parameters = list(self.task.module.parameters())
        limit = self.section.clip_grad if self.section.clip_grad is not None else math.inf
        grad_norm = nn.utils.clip_grad_norm_(parameters, limit)
        self.progress.step += 1
        if self.scaler.is_enabled():  # it skips a step with non-finite gradients and lowers its scale
            self.scaler.step(optimizer)
            self.scaler.update()
            self.task.update_ema(step=self.progress.step)
        else:
            self._guard.update(grad_norm, self.progress.step)
        return DeviceStep.of(images_BCHW.shape[0], learning_rate, grad_norm, results)

    def _forward_and_backward(
        self, context: StepContext, images_BCHW: Tensor, target: Tensor
    ) -> list[tuple[float, dict[str, Any]]]:
        """Accumulate the gradients of the micro-batches; returns the weight of each, and its losses."""
        count, rank = self.section.grad_accumulation, self.group.process.rank
        micro_batches = zip(images_BCHW.tensor_split(count), target.tensor_split(count), strict=True)
        results, first = [], 0
        for number, (images, labels) in enumerate(micro_batches):
            rows = self._rows[first : first + images.shape[0]]
            first += images.shape[0]
            weight = images.shape[0] / images_BCHW.shape[0]
            part = rank * count + number  # what is drawn within a model (dropout) differs in each
            torch.manual_seed(mix_step_seed(self.seed, context.step, *([part] if part else [])))
            # Processes add up their gradients once, with the last micro-batch.
            with contextlib.nullcontext() if number == count - 1 else self.task.no_sync():
                with self.autocast:
                    result = self.task(images, labels, dataclasses.replace(context, rows=rows))
                loss = spread_nonfinite(result["loss"] * weight if count > 1 else result["loss"])
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            results.append((weight, result))
        return results

    def _fetch_pending(self, epoch: int, began: float, stop: StopRequest) -> Iterator[StepRecord]:
        """Turn the steps since the last fetch into records, and check them for NaN and Inf."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        first = self.progress.step - len(pending) + 1
        steps, self._agreed_to_stop = fetch(pending, self.group, stop.requested is not None)
        for number, values in enumerate(steps, first):
            self._refuse_nonfinite(values, number, epoch)
            self.progress.epoch_loss_sum += values.losses["loss"]
        seconds = time.perf_counter() - began
        images = sum(values.images for values in steps)
        data_wait = self._waiting.take_share(seconds)
        self.progress.train_seconds += seconds
        self.progress.train_images += images
        for number, values in enumerate(steps, first):
            yield values.record(number, epoch, images / seconds, data_wait, self.total_steps)

    def _refuse_nonfinite(self, values: StepValues, step: int, epoch: int) -> None:
        bad = values.nonfinite(self.scaler.is_enabled())
        if bad is None:
            return
        kept = (
            f"The last good checkpoint is {self.store.last_path}."
            if self.store.last_path.exists()
            else "There is no checkpoint from before it."
        )
        diverged = TrainingDiverged(
            f"Step {step} (epoch {epoch}): {bad}. {kept}",
            "Lower train.lr, set train.clip_grad, or use train.precision fp32.",
        )
        diverged.step, diverged.epoch, diverged.seen = step, epoch, bad
        raise diverged

    def _validate(self, epoch: int, began: float) -> EpochRecord:
        accuracy, val_loss = self.group.run_on_main(lambda: self.validate(self.student))
        best = self.progress.best_epoch < 0 or accuracy.top1.value > self.progress.best["top1"]["value"]
        if best:
            if self.group.is_main:
                self.store.save_best(self.student, epoch)
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
        return record

    def _stop_if_requested(self, stop: StopRequest) -> None:
        wanted = stop.requested is not None if self.group.is_single else self._agreed_to_stop
        if not wanted or self.progress.step >= self.total_steps:
            return
        self.save()
        self.group.barrier()  # until the main process has written: torchrun ends all when one has ended
        raise Interrupted(
            f"Stopped by {stop.requested or 'another process'} after step {self.progress.step} of "
            f"{self.total_steps}; the state is in {self.store.last_path}.",
            "The same command resumes from there.",
        )
