"""Command lines in processes of their own, alone or several that train together, which can be killed at any point.

They are forked from a server that has torch loaded already: a process starts in a tenth of a second.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from dskd_compress.cli import main
from dskd_compress.training.checkpoint import CheckpointStore
from dskd_compress.training.log import TrainingLog
from dskd_export.documents import StepRecord

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["process_support", "dskd_compress.stages.distill", "sklearn.datasets"])

Fault = tuple[str, int]


def start(arguments: list[str], said: Path, fault: Fault | None = None, **environment: str) -> BaseProcess:
    """Start one command line; what it says goes to a file.

    Args:
        fault: where the process kills itself: ("step", 7) once step 7 is logged, ("write", 2) when half of the
            second checkpoint is written, ("best", 1) after the first best student and before the checkpoint that
            speaks of it, ("rename", 2) when the second checkpoint has taken the old one's name away.
    """
    process = _CONTEXT.Process(target=_run, args=(arguments, str(said), fault, environment))
    process.start()
    return process


def start_together(
    arguments: list[str], said: Path, faults: dict[int, Fault] | None = None, count: int = 2
) -> list[BaseProcess]:
    """Start processes as torchrun would; `said` gets the number of the process as its suffix."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    together = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        start(
            arguments,
            said.with_suffix(f".{rank}"),
            (faults or {}).get(rank),
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            **together,
        )
        for rank in range(count)
    ]


def exit_codes(*processes: BaseProcess, timeout_s: float = 120) -> list[int | None]:
    """Wait for the ends of processes; None is one that did not end in time, and was killed."""
    codes = []
    for process in processes:
        process.join(timeout_s)
        codes.append(process.exitcode)
        process.kill()
    return codes


def _run(arguments: list[str], said: str, fault: Fault | None, environment: dict[str, str]) -> None:
    os.environ.update(environment, OMP_NUM_THREADS="1")
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if fault is not None:
        _FAULTS[fault[0]](fault[1])
    sys.exit(main(arguments))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_after_step(step: int) -> None:
    real = TrainingLog.write

    def write(self: TrainingLog, record: Any) -> None:
        real(self, record)
        if isinstance(record, StepRecord) and record.step == step:
            _die()

    TrainingLog.write = write  # type: ignore[method-assign]


def _die_in_write(number: int) -> None:
    real, seen = Path.write_bytes, []

    def write_bytes(self: Path, data: Any) -> int:
        if self.name.startswith(".last."):
            seen.append(self)
            if len(seen) == number:
                real(self, data[: len(data) // 2])
                _die()
        return real(self, data)

    Path.write_bytes = write_bytes  # type: ignore[method-assign, assignment]


def _die_after_best(number: int) -> None:
    real, seen = CheckpointStore.save_best, []

    def save_best(self: CheckpointStore, *arguments: Any) -> None:
        real(self, *arguments)
        seen.append(self)
        if len(seen) == number:
            _die()

    CheckpointStore.save_best = save_best  # type: ignore[method-assign]


def _die_between_renamings(number: int) -> None:
    real, seen = CheckpointStore._make_room, []

    def make_room(self: CheckpointStore, step: int) -> None:
        real(self, step)
        seen.append(step)
        if len(seen) == number:
            _die()

    CheckpointStore._make_room = make_room  # type: ignore[method-assign]


_FAULTS: dict[str, Callable[[int], None]] = {
    "step": _die_after_step,
    "write": _die_in_write,
    "best": _die_after_best,
    "rename": _die_between_renamings,
}

__all__ = ["Fault", "exit_codes", "start", "start_together"]
