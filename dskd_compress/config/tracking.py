"""Recipe section of experiment trackers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dskd_compress.config.base import Section


class TrackingSection(Section):
    """Experiment trackers, in addition to the JSON lines. The default uses no network."""

    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field(
        (), description="each needs the extra of its name; files in trackers/ of the run folder"
    )
    every_steps: int = Field(10, ge=1, description="steps between two records of the losses")
    project: str = Field("dskd-compress", min_length=1, description="project of wandb, experiment of mlflow")
    run_name: str | None = Field(None, description="none: the recipe's name")
    wandb_mode: Literal["offline", "online"] = Field("offline", description="online sends to the wandb server")
    mlflow_uri: str | None = Field(
        None, description="tracking server or store of mlflow; none: trackers/mlflow of the run folder"
    )
