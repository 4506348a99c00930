"""Processes that decode images."""

from __future__ import annotations

import atexit
import signal
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from dskd_export.errors import EnvironmentProblem

PREFETCHED_BATCHES = 4  # a worker
# Seconds that a worker outlives a SIGTERM: long enough for the parent to save.
GRACE_SECONDS = 120

_running: weakref.WeakSet[DataLoader[Any]] = weakref.WeakSet()


def open_workers(
    samples: Dataset[Any],
    workers: int,
    device: torch.device,
    collate: Callable[[Any], Any],
    *,
    seed: int = 0,
    **options: Any,
) -> DataLoader[Any]:
    """Return a loader whose processes live as long as it does, draw nothing from ours and end with us.

    Args:
        samples: what the processes read.
        workers: their number; 0 reads in this process.
        device: where the batches will go.
        collate: samples -> batch.
        seed: of the processes' own generators, which timm's readers shuffle by.
        options: of torch's DataLoader: batches and their order.
    """
    loader: DataLoader[Any] = DataLoader(
        samples,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=init_worker,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCHED_BATCHES if workers else None,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(seed),  # leaves the global one alone
        **options,
    )
    end_at_exit(loader)
    return loader


def init_worker(_worker: int) -> None:
    """Leave Ctrl-C and SIGTERM to the parent, which saves and then ends the workers.

    Ctrl-C reaches every process of a terminal, and batch schedulers and `timeout` signal the whole
    group; a worker that died of it would stop the parent before it has saved. A second SIGTERM, or
    `GRACE_SECONDS` after the first, ends the worker, so that nothing can hang on it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _ignore_once)


def _ignore_once(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(GRACE_SECONDS)


def end_at_exit(loader: DataLoader[Any]) -> None:
    """See to it that the workers of a loader end before Python does.

    At exit multiprocessing sends one SIGTERM, which the workers ignore, and waits for them.
    """
    if not _running:
        atexit.unregister(_end_all)
        atexit.register(_end_all)  # the last registered is the first called
    _running.add(loader)


def end_workers(loader: DataLoader[Any]) -> None:
    """End the workers of a loader, also while someone still holds its iterator."""
    iterator = getattr(loader, "_iterator", None)
    if iterator is not None and hasattr(iterator, "_shutdown_workers"):
        iterator._shutdown_workers()
    _running.discard(loader)


def _end_all() -> None:
    for loader in list(_running):
        end_workers(loader)


@contextmanager
def worker_death_explained(workers: int) -> Iterator[None]:
    """Turn torch's report of a dead worker into one line that names the key to change.

    torch raises it from a signal handler, so it can surface anywhere in a training step: put the
    whole loop inside.

    Args:
        workers: the recipe's data.workers, for the message.

    Raises:
        EnvironmentProblem: a worker died, or shared memory is full.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if "DataLoader worker (pid" not in text and "shared memory" not in text:
            raise
        first = text.splitlines()[0].rstrip(" .")
        raise EnvironmentProblem(
            f"A process that decodes images died: {first}.",
            f"Usually memory or shared memory (/dev/shm) is full: lower data.workers (now {workers}) or "
            "train.batch_size, or give a container more with --shm-size.",
        ) from error
