"""Weights & Biases. Offline unless the recipe says online; `wandb sync RUN/trackers/wandb/...` sends it later."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from dskd_compress.training.trackers.base import RunLabel, collect_scalars, format_findings
from dskd_export.documents.training import TrainingRecord
from dskd_export.errors import require


class WandbTracker:
    """One run of a project; a resumed run keeps its id.

    Args:
        mode: `offline` writes files only.
    """

    def __init__(
        self,
        folder: Path,
        label: RunLabel,
        settings: Mapping[str, Any],
        project: str,
        mode: Literal["offline", "online"],
    ) -> None:
        os.environ.setdefault("WANDB_CACHE_DIR", str(folder / "cache"))  # its logs, else in the home folder
        wandb: Any = require("wandb", "wandb")
        folder.mkdir(parents=True, exist_ok=True)
        # Only what the training says of itself: no code, no console, no facts of the machine.
        quiet = wandb.Settings(
            silent=True,
            console="off",
            disable_code=True,
            disable_git=True,
            save_code=False,
            x_disable_stats=True,
            x_disable_meta=True,
        )
        self._run: Any = wandb.init(
            project=project,
            name=label.name,
            id=label.id,
            resume="allow" if mode == "online" else None,
            dir=str(folder),
            mode=mode,
            config=dict(settings),
            settings=quiet,
        )

    def log(self, record: TrainingRecord) -> None:
        """Write a record's numbers, and its findings into the summary."""
        self._run.log(collect_scalars(record), step=record.step)
        if text := format_findings(record):
            self._run.summary["findings"] = text

    def finish(self) -> None:
        """End the run."""
        self._run.finish()
