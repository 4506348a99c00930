"""MLflow: a store in the run folder, or the server that the recipe names."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dskd_compress.training.trackers.base import RunLabel, collect_scalars, format_findings
from dskd_export.documents.training import TrainingRecord
from dskd_export.errors import require

_ID = "dskd_compress.run"
_LONGEST = 500  # characters of a parameter


class MlflowTracker:
    """One run of an experiment; a resumed run is found again by its tag.

    Args:
        store: a folder, or the URI of a server or store.
    """

    def __init__(self, store: Path | str, label: RunLabel, settings: Mapping[str, Any], project: str) -> None:
        if isinstance(store, Path):
            # MLflow prefers a database for a store, which would need more libraries than a run folder is worth.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        require("mlflow", "mlflow")
        from mlflow.tracking import MlflowClient

        if isinstance(store, Path):
            store.mkdir(parents=True, exist_ok=True)
            store = store.resolve().as_uri()
        self._client: Any = MlflowClient(tracking_uri=store)
        experiment = self._client.get_experiment_by_name(project)
        number = experiment.experiment_id if experiment else self._client.create_experiment(project)
        found = self._client.search_runs([number], filter_string=f"tags.`{_ID}` = '{label.id}'")
        if found:
            self._run = found[0].info.run_id
            self._client.set_terminated(self._run, "RUNNING")
            return
        self._run = self._client.create_run(number, tags={_ID: label.id}, run_name=label.name).info.run_id
        for name, value in _flat(settings):
            self._client.log_param(self._run, name, str(value)[:_LONGEST])

    def log(self, record: TrainingRecord) -> None:
        """Write a record's numbers as metrics and its findings as a tag."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, record.step) for name, value in collect_scalars(record).items()]
        self._client.log_batch(self._run, metrics=metrics)
        if text := format_findings(record):
            self._client.set_tag(self._run, f"finding.{record.step}", text)

    def finish(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """{"train": {"lr": 0.1}} -> [("train.lr", 0.1)]; a section without keys is left out."""
    pairs: list[tuple[str, Any]] = []
    for key, value in settings.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return pairs
