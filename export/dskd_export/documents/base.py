"""The JSON documents of a run folder, typed.

One class for each file (or line of a `.jsonl` file) that a stage writes and a later stage or
the report reads. They are the contract between the packages: `dskd_compress` writes them,
`dskd_export.report` reads them without torch. A value that could not be measured is `None`
with its reason, never 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from dskd_export.errors import DataError
from dskd_export.files.bounded import read_bounded
from dskd_export.files.json_text import InvalidJson, validate_json

MAX_DOCUMENT = 16 << 20
MAX_RECORD = 1 << 20
"""Bytes that are read of a document, and of one line of `train.jsonl`."""

# JSON has no NaN: it is written as null, and null is read as NaN again. All other numbers are finite.
Measured = Annotated[
    float,
    Field(allow_inf_nan=True),
    BeforeValidator(lambda value: float("nan") if value is None else value),
]


class Document(BaseModel):
    """Base of all documents: immutable, unknown keys and numbers that are not finite refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="null")


class Interval(Document):
    """A point estimate with its 95 % interval, in the unit of the field that holds it."""

    value: float
    low: float
    high: float


class Accuracy(Document):
    """Accuracy on labelled images; fractions in [0, 1], Wilson score intervals."""

    top1: Interval
    top5: Interval | None = Field(default=None, description="None with fewer than six classes")
    images: int


class DataFacts(Document):
    """Which images were used."""

    source: str
    sha256: str
    sha256_of: Literal["content", "listing"] = Field(
        description="content: every pixel counted; listing: file names and sizes"
    )
    train_images: int | None
    val_images: int | None
    classes: list[str]
    skipped: list[str] = Field(default_factory=list, description="unreadable images, by name")
    left_out: list[str] = Field(
        default_factory=list, description="what the scan found and did not take for an image, counted by reason"
    )


class DeviceFacts(Document):
    """The machine that produced a number."""

    device: str = Field(description="cpu or cuda:0")
    cpu: str
    cores: int = Field(description="cores this process may use")
    memory_gb: float
    gpu: str | None = None
    compute_capability: str | None = Field(default=None, description="of the GPU, for example 8.7; None: unknown")
    driver: str | None = None
    platform: str
    governor: str | None = Field(default=None, description="CPU frequency governor where the system reports it")
    simd: str | None = Field(default=None, description="widest vectors of the CPU, for example AVX-512 VNNI")
    pinned_cores: list[int] | None = Field(
        default=None, description="cores that this process is pinned to; None: not pinned"
    )


class Provenance(Document):
    """How a number was obtained."""

    command: str
    started_at: str = Field(description="ISO 8601, UTC")
    seconds: float
    seed: int
    commit: str | None = Field(description="git commit of the tool's checkout, with '+dirty' where changed")
    versions: dict[str, str]
    device: DeviceFacts
    recipe_sha256: str

    @property
    def code(self) -> str:
        """What computed it, for readers: the commit, or the release where it was installed."""
        return (
            f"commit {self.commit}" if self.commit else f"dskd-compress {self.versions.get('dskd-compress', '')}"
        )


class StageRecord(Document):
    """`stages/<stage>.json`: what a stage read and wrote, so that a stale result shows as stale."""

    stage: str
    settings_sha256: dict[str, str] = Field(description="recipe section -> sha256 of its canonical JSON")
    inputs: dict[str, str] = Field(description="what was read -> sha256")
    outputs: dict[str, str] = Field(description="file written, relative to the run folder -> sha256")
    provenance: Provenance


DocumentT = TypeVar("DocumentT", bound=Document)


def read_document(path: Path, kind: type[DocumentT]) -> DocumentT:
    """Read one JSON document.

    Raises:
        DataError: the file is missing or is not a document of this kind.
    """
    try:
        return validate_json(read_bounded(path, MAX_DOCUMENT), kind)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file.", "Run the stage that writes it first.") from error
    except InvalidJson as error:
        raise DataError(
            f"{path}: not a valid {kind.__name__}: {error}.", "Delete the file and run the stage again."
        ) from error
