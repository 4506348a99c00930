"""Find a training of a run, and follow it until it ends."""

from __future__ import annotations

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
from dskd_compress.dashboard.view import draw
from dskd_compress.run_folder import DISTILL, TRAIN, TUNE, RunFolder
from dskd_export.errors import DataError, UsageError
from dskd_export.telemetry.cuda import cuda_gpus

_LOAD_S = 0.2
"""Before the first picture: the load of a core is a mean over time."""


@dataclass(frozen=True)
class Training:
    """One training of a run."""

    stage: str
    log: Path
    document: Path  # written at its end
    epochs: int | None  # of the whole training; None: not in the recipe
    device: str  # `cpu` or `cuda:0`

    @property
    def ended(self) -> bool:
        """Whether its document is newer than its log, which a restarted training replaces."""
        return self.document.is_file() and self.document.stat().st_mtime_ns >= self.log.stat().st_mtime_ns


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
        raise DataError(f"{folder.path} holds no log of {what}.", "Start it, or give another run folder.")
    newest = max(there, key=lambda name: known[name][0].stat().st_mtime_ns)
    log, document, section, epochs = known[newest]
    return Training(newest, log, document, epochs, _choose_device("auto" if section is None else section.device))


def watch(training: Training, title: str, console: Console, *, every_s: float, once: bool) -> tuple[Course, bool]:
    """Show a training until it ends or Ctrl-C, or, with `once`, one time.

    Returns:
        Its course, and whether it has ended.
    """
    follower, course = Follower(training.log), Course(training.epochs)
    with Load(training.device) as load, ExitStack() as stack:
        live = None if once else stack.enter_context(Live(console=console, auto_refresh=False))
        show = console.print if live is None else partial(live.update, refresh=True)
        time.sleep(_LOAD_S)
        while True:
            ended = training.ended  # before the last records are read, so none is missed
            records, restarted = follower.read()
            course = Course(training.epochs) if restarted else course
            course.add(records)
            show(
                draw(
                    title,
                    course,
                    load.describe(),
                    None if ended else max(0.0, time.time() - training.log.stat().st_mtime),
                )
            )
            if ended or once:
                return course, ended
            try:
                time.sleep(every_s)
            except KeyboardInterrupt:
                return course, False


def _choose_device(requested: str) -> str:
    if requested == "auto":
        return "cuda:0" if cuda_gpus() else "cpu"
    return "cuda:0" if requested == "cuda" else requested
