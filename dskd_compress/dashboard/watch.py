"""Find a training of a run, and follow it until it ends."""

from __future__ import annotations

import shlex
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.live import Live

from dskd_compress.config import Recipe
from dskd_compress.dashboard.course import Course
from dskd_compress.dashboard.follow import Follower
from dskd_compress.dashboard.load import Load
from dskd_compress.dashboard.view import State, draw
from dskd_compress.run_folder import BENCHMARK, DISTILL, EXPORT, REPORT, TRAIN, TUNE, VALIDATE, RunFolder
from dskd_export.errors import DataError, UsageError
from dskd_export.files.folder_lock import Holder, find_holder
from dskd_export.telemetry.cuda import cuda_gpus

_LOAD_S = 0.2
"""Before the first picture: the load of a core is a mean over time."""


# Commands that write to a run folder and train nothing.
_OTHER_WRITERS = (EXPORT, VALIDATE, BENCHMARK, REPORT, "build", "deploy")


@dataclass(frozen=True)
class Training:
    """One training of a run."""

    run: Path
    stage: str
    log: Path
    document: Path  # written at its end
    epochs: int | None  # of the whole training; None: not in the recipe
    device: str  # `cpu` or `cuda:0`

    @property
    def ended(self) -> bool:
        """Whether its document is newer than its log, which a restarted training replaces."""
        return self.document.is_file() and self.document.stat().st_mtime_ns >= self.log.stat().st_mtime_ns

    @property
    def state(self) -> State:
        """Whether a process trains, has trained to the end, or is gone."""
        trains = _find_trainer(self.run) is not None  # first: a training lets go of the folder once it has ended
        if self.ended:
            return "ended"
        return "running" if trains else "stopped"


def find_training(folder: RunFolder, recipe: Recipe, stage: str | None) -> Training:
    """Find the training to follow.

    Args:
        stage: train, distill or tune; None: the one that wrote last.

    Raises:
        DataError: its log is missing.
        UsageError: no such stage.
    """
    teacher, tune = recipe.teacher.train, recipe.tune
    known = {
        TRAIN: (
            folder.log("teacher"),
            folder / "teacher.json",
            teacher,
            None if teacher is None else teacher.epochs,
        ),
        DISTILL: (folder.log("student"), folder / "distill.json", recipe.train, recipe.train.epochs),
        TUNE: (folder.log("tuned"), folder / "tune.json", recipe.train, None if tune is None else tune.epochs),
    }
    if stage is not None and stage not in known:
        raise UsageError(f"--stage {stage} is no training.", f"Choose one of: {', '.join(known)}.")
    there = [name for name, (log, *_) in known.items() if log.is_file() and stage in (None, name)]
    if not there:
        what = "any training" if stage is None else stage
        if (trainer := _find_trainer(folder.path)) is not None:
            raise DataError(
                f"{folder.path} holds no log of {what} yet: {trainer} is preparing it.",
                f"Try again in a minute: dskd-compress dashboard {shlex.quote(str(folder.path))}",
            )
        raise DataError(f"{folder.path} holds no log of {what}.", "Start it, or give another run folder.")
    newest = max(there, key=lambda name: known[name][0].stat().st_mtime_ns)
    log, document, section, epochs = known[newest]
    return Training(
        folder.path, newest, log, document, epochs, _choose_device("auto" if section is None else section.device)
    )


def watch(training: Training, title: str, console: Console, *, every_s: float, once: bool) -> tuple[Course, State]:
    """Show a training until it ends, stops, or Ctrl-C, or, with `once`, one time.

    Returns:
        Its course, and its state at that time.
    """
    follower, course = Follower(training.log), Course(training.epochs)
    with Load(training.device) as load, ExitStack() as stack:
        live = None if once else stack.enter_context(Live(console=console, auto_refresh=False))
        show = console.print if live is None else partial(live.update, refresh=True)
        time.sleep(_LOAD_S)
        while True:
            state = training.state  # before the last records are read, so none is missed
            records, restarted = follower.read()
            course = Course(training.epochs) if restarted else course
            course.add(records)
            silent_s = max(0.0, time.time() - training.log.stat().st_mtime)
            show(draw(title, course, load.describe(), silent_s, state))
            if state != "running" or once:
                return course, state
            try:
                time.sleep(every_s)
            except KeyboardInterrupt:
                return course, state


def _find_trainer(run: Path) -> Holder | None:
    """Find the process that trains in a run folder."""
    holder = find_holder(run)
    command = "" if holder is None else holder.command.removeprefix("dskd-compress ").partition(" ")[0]
    return None if command in _OTHER_WRITERS else holder


def _choose_device(requested: str) -> str:
    if requested == "auto":
        return "cuda:0" if cuda_gpus() else "cpu"
    return "cuda:0" if requested == "cuda" else requested
