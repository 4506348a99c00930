"""One training: start or resume, log every record, keep the best and the last weights."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dskd_compress.config import Recipe, TrainSection
from dskd_compress.console import Output
from dskd_compress.data import BatchShard, DataSets, Preprocessing, TrainLoader, ValLoader, explain_worker_death
from dskd_compress.methods import MethodTask
from dskd_compress.replaced_training import STAGE_OF, bring_back_earlier, keep_replaced
from dskd_compress.run_folder import RunFolder
from dskd_compress.run_folder.earlier import training_settings
from dskd_compress.training.checkpoint import CheckpointStore
from dskd_compress.training.device import peak_memory_mb
from dskd_compress.training.diagnosis import Diagnosis
from dskd_compress.training.distributed import Group
from dskd_compress.training.evaluate import evaluate_model
from dskd_compress.training.journal import Journal
from dskd_compress.training.log import TrainingLog
from dskd_compress.training.loop import Trainer
from dskd_compress.training.progress_facts import ProgressFacts, name_validation
from dskd_compress.training.trackers import open_trackers
from dskd_export.documents.base import Accuracy, DataFacts
from dskd_export.documents.training import DiagnosisRecord, EpochRecord, StepRecord
from dskd_export.errors import Interrupted, TrainingDiverged
from dskd_export.files.atomic import temporary_path
from dskd_export.runtime.images import name_unreadable
from dskd_export.telemetry.host import usable_cores


@dataclass(frozen=True)
class Trained:
    """Result of a training; only the main process has the state."""

    state: dict[str, Tensor]
    best_epoch: int
    best: Accuracy
    last: Accuracy
    steps: int
    images_per_s: float
    skipped: list[str]

    def facts(self, section: TrainSection, data: DataFacts, device: torch.device) -> dict[str, Any]:
        """Collect the fields that the documents of all trainings share."""
        return {
            "epochs": section.epochs,
            "steps": self.steps,
            "best_epoch": self.best_epoch,
            "best": self.best,
            "last": self.last,
            "images_per_s": self.images_per_s,
            "peak_memory_mb": peak_memory_mb(device),
            "data": data.model_copy(update={"skipped": self.skipped}),
        }


@dataclass(frozen=True)
class Loaders:
    """Training batches, split over the processes of the group, and validation batches."""

    train: TrainLoader
    val: ValLoader
    group: Group

    @classmethod
    def open(
        cls,
        recipe: Recipe,
        section: TrainSection,
        sets: DataSets,
        format: Preprocessing,
        group: Group,
    ) -> Loaders:
        """Open both for the device of this process."""
        process, device = group.process, group.device
        return cls(
            TrainLoader(
                sets,
                recipe.data,
                format,
                batch_size=section.batch_size,
                seed=recipe.seed,
                device=device,
                shard=BatchShard(process.rank, process.world_size),
                batch_key=f"{'teacher.' if section is recipe.teacher.train else ''}train.batch_size",
            ),
            ValLoader(
                sets,
                format,
                batch_size=max(section.batch_size, 64),
                device=device,
                workers=recipe.data.workers,
                resident=recipe.data.loader == "resident",
            ),
            group,
        )

    def accuracy(self, model: Callable[[Tensor], Tensor] | nn.Module) -> tuple[Accuracy, float]:
        """Measure accuracy and loss of a model on the validation set."""
        return evaluate_model(model, self.val)

    def some_images(self, batches: int) -> Iterator[Tensor]:
        """Iterate over the first training images, for statistics: the same ones in all processes.

        Epoch -1 leaves the order of the training alone.
        """
        for images_BCHW, _ in islice(self.train.epoch(-1), batches):
            yield from self.group.all_gather(images_BCHW)
        self.train.close()  # batches that nobody takes would stay in shared memory


def train(
    task: MethodTask,
    loaders: Loaders,
    section: TrainSection,
    *,
    role: str,
    recipe: Recipe,
    inputs: Mapping[str, str],
    folder: RunFolder,
    output: Output,
    diagnosis: Diagnosis | None = None,
    statistics_batches: int = 0,
) -> Trained:
    """Train a task to its end, or resume it.

    An earlier training's log and recipe stay until this one has a checkpoint: what fails before that,
    on a bad image or a full disk, has changed no result. Then it moves to `earlier/`.

    Args:
        role: `teacher` or `student`; names the log and the checkpoints.
        inputs: hashes of what it reads next to the recipe's settings. Checkpoints of others are not resumed.
        statistics_batches: training batches for the statistics of the task before the first step.

    Raises:
        Interrupted, TrainingDiverged: see `Trainer.run`.
        CheckpointError, EnvironmentProblem: see `Trainer.resume`.
        DiagnosisError: see `Diagnosis`.
    """
    if section.channels_last:
        task.to(memory_format=torch.channels_last)
    group, cores = loaders.group, usable_cores()
    if loaders.train.workers > cores:
        output.warn(
            f"data.workers is {loaders.train.workers}, but this process may use {cores} of the machine's cores: "
            "more processes only take memory"
        )
    store = CheckpointStore(
        folder.checkpoints(role),
        folder.settings_digest(STAGE_OF[role], recipe, inputs),
        section.keep_checkpoints,
        training_settings(folder, STAGE_OF[role], recipe, inputs),
    )
    trainer = Trainer(
        task,
        loaders.train,
        loaders.accuracy,
        section,
        seed=recipe.seed,
        store=store,
        group=group,
        after_backward=None if diagnosis is None else diagnosis.after_backward,
    )
    resumed = trainer.resume()
    if not resumed and group.run_on_main(lambda: bring_back_earlier(folder, role, store, output)):
        resumed = trainer.resume()
    for damaged in store.passed_over:
        output.warn(f"{damaged} is damaged; resuming from the checkpoint before it")
    if resumed:
        output.print(f"Resuming {role} training at step {trainer.progress.step}/{trainer.total_steps}.")
    elif group.is_main:
        keep_replaced(folder, role, store, recipe, output)
    if not resumed and statistics_batches:
        task.fit_statistics(loaders.some_images(statistics_batches))
    # A worker that dies is reported from a signal handler, at any point of a step.
    with explain_worker_death(loaders.train.workers), _name_run(folder):
        if group.is_main:
            _log_training(trainer, folder.log(role), section, role, recipe, folder, output, diagnosis)
        else:
            # All processes look for faults at the same steps: what a method sends to the others is then answered.
            _begin(diagnosis, trainer, [])
            deque(trainer.run(), maxlen=0)
    done = trainer.progress
    skipped = sorted({*done.skipped, *loaders.val.skipped})
    if skipped:
        output.warn(name_unreadable(skipped))
    return Trained(
        state=store.load_best(done.best_epoch) if group.is_main else {},
        best_epoch=done.best_epoch,
        best=Accuracy.model_validate(done.best),
        last=Accuracy.model_validate(done.last),
        steps=done.step,
        images_per_s=done.train_images / done.train_seconds if done.train_seconds > 0 else 0.0,
        skipped=skipped,
    )


def _log_training(
    trainer: Trainer,
    place: Path,
    section: TrainSection,
    role: str,
    recipe: Recipe,
    folder: RunFolder,
    output: Output,
    diagnosis: Diagnosis | None,
) -> None:
    """Train, log every record and show progress."""
    if not (folder / "recipe.yaml").exists():
        folder.write_recipe(recipe)
    written_to = temporary_path(place, place.suffix) if trainer.progress.step == 0 and place.exists() else place
    log = TrainingLog(written_to, trainer.progress.step, trainer.progress.epoch)
    trackers = open_trackers(
        recipe.tracking,
        folder.trackers,
        role=role,
        settings=recipe.model_dump(mode="json", by_alias=True),
        resumed=trainer.progress.step > 0,
        reached=log.reached,
        warn=output.warn,
    )
    journal = Journal(log, trackers, diagnosis, output)

    def commit_log() -> None:
        log.sync()  # after a power cut no record may be missing from before the checkpoint
        if written_to.exists():
            written_to.replace(place)
        folder.write_recipe(recipe)

    trainer.store.before_commit = commit_log
    facts = ProgressFacts(trainer.progress.last.get("top1", {}).get("value"))
    with output.progress(STAGE_OF[role], trainer.total_steps, unit="step") as progress:
        progress.advance(trainer.progress.step)
        trainer.validate = name_validation(trainer.validate, progress, STAGE_OF[role])
        try:
            with contextlib.closing(journal), _log_divergence(journal):
                _begin(diagnosis, trainer, log.diagnoses)
                for record in trainer.run():
                    journal.write(record)
                    is_step = isinstance(record, StepRecord)
                    progress.advance(1 if is_step else 0, facts.add(record))
                    if isinstance(record, EpochRecord):
                        _announce(record, section, output)
        finally:
            if written_to != place:
                written_to.unlink(missing_ok=True)
    folder.write_recipe(recipe)


@contextlib.contextmanager
def _log_divergence(journal: Journal) -> Iterator[None]:
    try:
        yield
    except TrainingDiverged as error:
        journal.write_divergence(error)
        raise


@contextlib.contextmanager
def _name_run(folder: RunFolder) -> Iterator[None]:
    """Name the run in an interrupt: its checkpoint and its recipe are all that resuming needs."""
    try:
        yield
    except Interrupted as stopped:
        stopped.run = folder.path
        raise


def _begin(diagnosis: Diagnosis | None, trainer: Trainer, earlier: Iterable[DiagnosisRecord]) -> None:
    if diagnosis is not None:
        diagnosis.begin(
            trainer.progress.step,
            trainer.optimization.optimizer,
            scale=trainer.scaler.get_scale,
            last=trainer.total_steps,
            earlier=earlier,
        )


def _announce(record: EpochRecord, section: TrainSection, output: Output) -> None:
    mark = ", best so far" if record.best else ""
    output.print(
        f"epoch {record.epoch + 1}/{section.epochs}: loss {record.train_loss:.3f}, "
        f"validation loss {record.val_loss:.3f}, top-1 {record.top1:.2%}{mark}"
    )
