"""Why a process that decodes images failed: reported by the process itself, or seen in how it ended.

torch prints what the sending thread of a worker raises and sends nothing, and the training would wait
for that batch for ever. So a worker reports such an error through a pipe and ends, which torch notices.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable
from multiprocessing import queues
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from dskd_compress.shortages import (
    explain_shortage,
    is_memory_limited,
    make_memory_error,
    make_shared_memory_error,
)
from dskd_export.errors import EnvironmentProblem

# torch's words for a worker that ended; its SIGCHLD handler raises them at any point of a step.
WORKER_ENDED = "DataLoader worker (pid"
IN_THIS_PROCESS = "Decode in the training process, which shows more: --set data.workers=0"

_LONGEST = 1000  # characters of a report: a pipe takes it in one piece


class Report(NamedTuple):
    """What a worker could not do, in values that every process can read."""

    kind: str
    text: str
    number: int | None
    file: str | None

    def as_error(self) -> Exception:
        """An error that says the same in this process."""
        if self.number is None:
            return RuntimeError(f"{self.kind}: {self.text}")
        return OSError(self.number, os.strerror(self.number), self.file)


def report_unsent_batches(to: Connection) -> None:
    """Let this process, a worker, report the batch that it cannot send, and end."""

    def end(error: Exception, _batch: object) -> None:
        file = getattr(error, "filename", None)
        report = Report(
            type(error).__name__,
            str(error)[:_LONGEST],
            getattr(error, "errno", None),
            None if file is None else os.fsdecode(file)[:_LONGEST] if isinstance(file, (str, bytes)) else None,
        )
        try:
            to.send(tuple(report))
        finally:
            os._exit(1)

    # The hook that concurrent.futures overrides; this class is changed in this process alone.
    queues.Queue._on_queue_feeder_error = staticmethod(end)  # type: ignore[attr-defined]


def read_reports(pipe: Connection) -> list[Report]:
    """Take what workers have reported since the last call."""
    found = []
    while pipe.poll():
        found.append(Report(*pipe.recv()))
    return found


def explain_end(text: str, reports: Iterable[Report], workers: Iterable[Any], count: int | None) -> Exception:
    """Turn the end of a worker into one line with its cause.

    Args:
        text: torch's, which may name the signal.
        count: the recipe's data.workers, for the hint; None: not known.
    """
    for report in reports:
        cause = explain_shortage(error := report.as_error())
        if cause is not error or isinstance(error, OSError):
            assert isinstance(cause, Exception)
            return cause
        return EnvironmentProblem(
            f"A process that decodes images cannot send a batch: {report.kind}: {_first_line(report.text)}.",
            IN_THIS_PROCESS,
        )
    code = next((code for worker in workers if (code := worker.exitcode)), None) or _signal_in(text)
    if code == -signal.SIGBUS:
        return make_shared_memory_error()
    if code == -signal.SIGKILL:
        return _death_error("SIGKILL, as the system does when memory is full", _more_memory(count))
    if code is not None and code < 0:
        if is_memory_limited():
            return make_memory_error()
        return _death_error(signal.Signals(-code).name, IN_THIS_PROCESS)
    if code is not None:
        return _death_error(f"exit code {code}, with its own message above", IN_THIS_PROCESS)
    return _death_error("nothing says why", _more_memory(count))


def _death_error(how: str, hint: str) -> EnvironmentProblem:
    return EnvironmentProblem(f"A process that decodes images died: {how}.", hint)


def _more_memory(count: int | None) -> str:
    now = "" if count is None else f" (now {count})"
    return f"Lower data.workers{now} or train.batch_size, or give the container more memory."


def _signal_in(text: str) -> int | None:
    found = re.search(r"killed by signal: ([^.\n]+)", text)
    if found is None:
        return None
    names = {signal.strsignal(one): -one for one in signal.valid_signals()}
    return names.get(found[1].strip())


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[0].rstrip(" .")
