"""`calibration.json`: which images the quantised models of a bundle were calibrated on, and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dskd_export.documents.base import Document

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PrecisionCalibration(Document):
    """How the ranges of one model were found."""

    method: Literal["max", "entropy", "percentile", "ranges"] = Field(
        description="of the values seen: largest, least divergence, a percentile; ranges: only to choose what "
        "stays in fp32"
    )
    percentile: float | None = Field(default=None, gt=0, le=100, description="only of method percentile")
    producer: str = Field(min_length=1, description="the tool that calibrated, with its version")
    details: dict[str, Any] = Field(default_factory=dict, description="its settings; no absolute paths")

    @model_validator(mode="after")
    def _percentile_where_it_means_something(self) -> PrecisionCalibration:
        if (self.percentile is None) != (self.method != "percentile"):
            raise ValueError("percentile belongs to method percentile, and only to it")
        return self


class CalibrationFacts(Document):
    """The whole of `calibration.json`."""

    schema_version: Literal[1] = 1
    split: Literal["train"] = Field(default="train", description="the images that it was drawn from")
    seed: int = Field(description="of the draw")
    image_sha256: tuple[Sha256, ...] = Field(
        min_length=1, description="of each image's decoded pixels, in the order of the draw; as in golden.npz"
    )
    evaluation_images: int = Field(
        ge=0, description="images that accuracy is measured on, whose hashes were compared with these"
    )
    shared_images: Literal[0] = Field(
        default=0, description="images that are in both: none, or it is no calibration"
    )
    precisions: dict[str, PrecisionCalibration] = Field(min_length=1)
