"""A small training on digits, alone or as one of several processes, and what it leaves."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from support import make_pair

from dskd_compress.config import AugmentSection, DataSection, Method, NoneMethod, TrainSection
from dskd_compress.data import BatchShard, TrainLoader, ValLoader, open_data
from dskd_compress.methods import create_head_task, create_task
from dskd_compress.training.checkpoint import CheckpointStore
from dskd_compress.training.distributed import join
from dskd_compress.training.evaluate import evaluate_model
from dskd_compress.training.loop import Trainer


@dataclass(frozen=True)
class Case:
    """What to train. By default all there is of augmentation, on two networks without batch norm."""

    method: Method
    section: TrainSection
    student: str = "test_convnext"
    teacher: str = "test_resnet"
    mix: bool = True
    head: bool = False  # train the classifier alone

    @property
    def data(self) -> DataSection:
        """179 digits, five steps of 32 an epoch."""
        mixing = {"mixup": 0.2, "cutmix": 0.5, "erase": 0.4} if self.mix else {}
        augment = AugmentSection(hflip=0.0, scale=(0.6, 1.0), **mixing)  # type: ignore[arg-type]
        return DataSection(input_size=32, workers=0, val_fraction=0.9, augment=augment)


def train_case(case: Case, folder: Path) -> list[dict[str, Any]]:
    """Train to the end; returns the records without times, and last the sums of all weights and averages."""
    torch.set_num_threads(1)
    with join(case.section) as group:
        pair = make_pair(case.student, case.teacher, size=32)
        sets, data = open_data(case.data, 0), case.data
        task = create_task(
            case.method,
            pair.student,
            None if isinstance(case.method, NoneMethod) else pair,
            label_smoothing=0.1,
            seed=0,
            device=group.device,
        )
        if case.head:
            task = create_head_task(pair.student, label_smoothing=0.1, device=group.device)
        shard = BatchShard(group.process.rank, group.process.world_size)
        loader = TrainLoader(
            sets,
            data,
            pair.student_format,
            batch_size=case.section.batch_size,
            seed=0,
            device=group.device,
            shard=shard,
        )
        validation = ValLoader(sets, pair.student_format, batch_size=256, device=group.device, workers=0)
        trainer = Trainer(
            task,
            loader,
            lambda model: evaluate_model(model, islice(validation, 1)),
            case.section,
            seed=0,
            store=CheckpointStore(folder, "one"),
            group=group,
        )
        if not trainer.resume():
            some = (part for part in group.all_gather(next(iter(loader.epoch(-1)))[0]))
            task.fit_statistics(some)
        records = [record.model_dump(exclude={"images_per_s", "data_wait", "seconds"}) for record in trainer.run()]
        assert all(isinstance(record, dict) for record in records)
        averages = trainer.task.get_trainable_module(ema=True)
        modules = {"weights": trainer.task.module, "averages": None if averages is None else averages.module}
        sums = {
            name: {key: float(value.double().abs().sum()) for key, value in module.state_dict().items()}
            for name, module in modules.items()
            if module is not None
        }
        return [*records, sums]


def train_cases(cases: list[Case], folder: str, environment: dict[str, str]) -> None:
    """For a process among several: the result of case 0 of process 1 goes to `0.1.json`."""
    for number, case in enumerate(cases):
        # Each case is a training of its own, with a port of its own.
        port = int(environment["MASTER_PORT"]) + number
        os.environ.update(environment, MASTER_PORT=str(port), OMP_NUM_THREADS="1")
        result = train_case(case, Path(folder) / str(number))
        (Path(folder) / f"{number}.{environment['RANK']}.json").write_text(json.dumps(result), encoding="utf-8")


__all__ = ["Case", "train_case", "train_cases"]
