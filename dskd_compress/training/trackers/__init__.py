"""Experiment trackers behind one small protocol; each library is imported only where the recipe names it."""

from __future__ import annotations

import importlib.util
import json
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dskd_compress.config import TrackingSection
from dskd_compress.training.trackers.base import RunLabel, Tracker, Trackers, first_line
from dskd_export.errors import EXTRA_OF, DataError, MissingExtra
from dskd_export.files.atomic import write_atomic
from dskd_export.files.bounded import read_bounded
from dskd_export.files.json_text import InvalidJson, parse_json

__all__ = ["Tracker", "Trackers", "check_trackers", "open_trackers"]


def check_trackers(section: TrackingSection) -> None:
    """Refuse a tracker whose library is not there, before any work is done.

    Raises:
        MissingExtra: with the command that installs it.
    """
    for name in section.trackers:
        if importlib.util.find_spec(name) is None:
            raise MissingExtra(name, EXTRA_OF[name])


def open_trackers(
    section: TrackingSection,
    folder: Path,
    *,
    role: str,
    settings: Mapping[str, Any],
    resumed: bool,
    reached: Mapping[str, int],
    warn: Callable[[str], None],
) -> Trackers:
    """Open the recipe's trackers; one that cannot be opened is left out, with a warning.

    Args:
        role: `teacher` or `student`.
        resumed: continue the same run; else begin a new one.
        reached: last record of each kind that is tracked already.

    Raises:
        MissingExtra: see `check_trackers`.
    """
    check_trackers(section)
    opened: dict[str, Tracker] = {}
    if section.trackers:
        name = section.run_name or str(settings.get("name", "run"))
        label = RunLabel(f"{name} {role}", _run_id(folder / f"{role}.json", resumed))
        for kind in section.trackers:
            try:
                opened[kind] = _open(kind, section, folder, label, settings)
            except Exception as error:  # a server, a disk, a library's own taste: none of it may end the training
                warn(f"{kind} is left out: {first_line(error)}. train.jsonl has every record.")
    return Trackers(opened, section.every_steps, reached if resumed else {}, warn)


def _open(
    kind: str, section: TrackingSection, folder: Path, label: RunLabel, settings: Mapping[str, Any]
) -> Tracker:
    if kind == "tensorboard":
        from dskd_compress.training.trackers.tensorboard import TensorboardTracker

        return TensorboardTracker(folder / "tensorboard", label, settings)
    if kind == "wandb":
        from dskd_compress.training.trackers.wandb import WandbTracker

        return WandbTracker(folder / "wandb", label, settings, section.project, section.wandb_mode)
    from dskd_compress.training.trackers.mlflow import MlflowTracker

    return MlflowTracker(section.mlflow_uri or folder / "mlflow", label, settings, section.project)


def _run_id(path: Path, resumed: bool) -> str:
    """The id of this run, the same over all its interruptions."""
    if resumed and path.is_file():
        try:
            return str(parse_json(read_bounded(path, 1 << 16))["run"])
        except (DataError, InvalidJson, KeyError, TypeError):
            pass  # damaged: the run continues under a new id
    run = uuid.uuid4().hex[:16]
    write_atomic(path, json.dumps({"run": run}) + "\n")
    return run
