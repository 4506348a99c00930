"""What the checks before a run found, as a document."""

from __future__ import annotations

from pydantic import Field

from dskd_export.documents.base import Document


class Preflight(Document):
    """The checks of a run that may start. 1 MB = 10^6 bytes."""

    pending: dict[str, str] = Field(description="stage -> why it runs; images are not compared")
    classes: int
    train_images: int | None = Field(description="None: a stream that does not tell")
    val_images: int | None
    sample_size: str = Field(description="limits that the validation images can show; empty: nothing is judged")
    disk_mb: float | None = Field(description="least that the run writes, estimated; None: trains nothing")
    disk_free_mb: float | None
    memory_mb: float | None = Field(description="of the training's device, estimated; None: trains nothing")
    memory_free_mb: float | None
    warnings: list[str]
    seconds: float = Field(description="that the checks took, without the import of torch")
