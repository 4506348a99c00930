"""Command lines in processes of their own, alone or several that train together, which can be killed at any point.

They are forked from a server that has torch loaded already: a process starts in a tenth of a second.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any

from dskd_compress.cli import main
from dskd_compress.methods.base import MethodTask
from dskd_compress.training.checkpoint import CheckpointStore
from dskd_compress.training.log import TrainingLog
from dskd_export.child_process import make_module_command
from dskd_export.documents.training import StepRecord

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["process_support", "dskd_compress.stages.distill", "sklearn.datasets"])

Fault = tuple[str, int]


def start(arguments: list[str], said: Path, fault: Fault | None = None, **environment: str) -> BaseProcess:
    """Start one command line; what it says goes to a file.

    Args:
        fault: where the process kills itself: ("step", 7) once step 7 is logged, ("write", 2) when half of the
            second checkpoint is written, ("best", 1) after the first best student and before the checkpoint that
            speaks of it, ("rename", 2) when the second checkpoint has taken the old one's name away, ("batch", 4)
            before the fourth batch of this process. At a batch it can also be sent SIGTERM, or stall.
    """
    return start_function(_run, arguments, str(said), fault, environment)


def start_function(function: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Call a function, and what it is given, in a process of its own."""
    process = _CONTEXT.Process(target=function, args=arguments)
    process.start()
    return process


def environments(count: int = 2) -> list[dict[str, str]]:
    """What torchrun tells each of its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    together = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{"RANK": str(rank), "LOCAL_RANK": str(rank), **together} for rank in range(count)]


def start_together(arguments: list[str], said: Path, faults: dict[int, Fault] | None = None) -> list[BaseProcess]:
    """Start two processes as torchrun would; `said` gets the number of the process as its suffix."""
    return [
        start(arguments, said.with_suffix(f".{rank}"), (faults or {}).get(rank), **environment)
        for rank, environment in enumerate(environments())
    ]


def exit_codes(*processes: BaseProcess, timeout_s: float = 300) -> list[int | None]:
    """Wait for the ends of processes; None is one that did not end in time, and was killed."""
    codes = []
    for process in processes:
        process.join(timeout_s)
        codes.append(process.exitcode)
        process.kill()
    return codes


def run_forked(command: list[str], *, stdout: IO[str], **_: Any) -> subprocess.CompletedProcess[str]:
    """In place of `subprocess.run` for a command line of this program: without three seconds of imports."""
    words = command[command.index("dskd_compress") + 1 :]
    assert command == make_module_command("dskd_compress", *words)
    (code,) = exit_codes(start(words, Path(f"/proc/self/fd/{stdout.fileno()}").resolve()))
    assert code is not None
    return subprocess.CompletedProcess(command, code)


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


def _at_batch(number: int, act: Callable[[], None]) -> None:
    real, seen = MethodTask.forward, []

    def forward(self: MethodTask, *arguments: Any) -> Any:
        seen.append(self)
        if len(seen) == number:
            act()
        return real(self, *arguments)

    MethodTask.forward = forward  # type: ignore[method-assign]


_FAULTS: dict[str, Callable[[int], None]] = {
    "step": _die_after_step,
    "write": _die_in_write,
    "best": _die_after_best,
    "rename": _die_between_renamings,
    "batch": lambda number: _at_batch(number, _die),
    "sigterm at batch": lambda number: _at_batch(number, lambda: os.kill(os.getpid(), signal.SIGTERM)),
    "stall at batch": lambda number: _at_batch(number, lambda: time.sleep(600)),
}

__all__ = ["Fault", "environments", "exit_codes", "run_forked", "start", "start_function", "start_together"]
