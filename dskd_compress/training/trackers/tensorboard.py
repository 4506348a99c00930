"""TensorBoard: event files in the run folder. Look at them with `tensorboard --logdir RUN/trackers`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dskd_compress.training.trackers.base import RunLabel, collect_scalars, format_findings
from dskd_export.documents.training import StepRecord, TrainingRecord
from dskd_export.errors import require

_FLUSH_SECONDS = 10


class TensorboardTracker:
    """One folder of event files a run; a resumed run adds a file to it."""

    def __init__(self, folder: Path, label: RunLabel, settings: Mapping[str, Any]) -> None:
        require("tensorboard", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        place = folder / f"{label.name.replace('/', '_').replace(' ', '-')}-{label.id}"
        new = not place.exists()
        self._writer: Any = SummaryWriter(str(place), flush_secs=_FLUSH_SECONDS)
        if new:
            self._writer.add_text("recipe", f"```json\n{json.dumps(settings, indent=2)}\n```", 0)

    def log(self, record: TrainingRecord) -> None:
        """Write a record's numbers as scalars and its findings as text."""
        for name, value in collect_scalars(record).items():
            self._writer.add_scalar(name, value, record.step)
        if text := format_findings(record):
            self._writer.add_text("findings", text, record.step)
        if not isinstance(record, StepRecord):
            self._writer.flush()

    def finish(self) -> None:
        """Close the file."""
        self._writer.close()
