"""`export.json`: the precisions of a bundle, how they were made, and what each layer costs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dskd_export.documents.base import Document, Measured, Provenance


class ScoreFacts(Document):
    """How far a model is from fp32 on calibration images: a guide for the search and no verdict."""

    kl: Measured = Field(description="mean KL(fp32 || model), in nats; infinite where there is NaN or Inf")
    agreement: float = Field(description="share of images with the same first class")
    top1_drop: float = Field(description="accuracy lost against fp32, a fraction; negative where it gained")


class LayerSensitivity(Document):
    """A layer, or a group that was not worth looking into."""

    nodes: list[str] = Field(min_length=1, description="names of ONNX nodes")
    kl: Measured = Field(description="mean KL to fp32 with these in the precision and all else in fp32, in nats")
    kept: bool = Field(description="left in floating point by the search")


class SearchFacts(Document):
    """A search for the layers that cost the accuracy."""

    images: int = Field(description="calibration images that it scored on")
    before: ScoreFacts
    after: ScoreFacts
    good: bool = Field(description="whether `after` is within the limits that the recipe sets the search")
    layers: list[LayerSensitivity] = Field(description="the costliest first; empty: nothing had to be searched")
    evaluations: int = Field(description="models that were run")
    seconds: float


class PrecisionFacts(Document):
    """A model of the bundle."""

    precision: str
    producer: str
    opset: int
    rest: Literal["fp32", "fp16"] = Field(description="type of what is not of that precision")
    size_mb: float = Field(description="of the ONNX file, 1 MB = 10^6 bytes")
    kept: list[str] = Field(description="nodes that stayed in floating point (fp32 for fp16 and bf16)")
    search: SearchFacts | None = None
    seconds: float


class ExportDocument(Document):
    """The whole of it."""

    target: str
    precisions: list[PrecisionFacts]
    calibration_images: int | None = Field(default=None, description="None: fp32 alone needs none")
    left_out_images: int | None = Field(
        default=None, description="training images that are evaluation images too, and so were not used"
    )
    bundle_sha256: str
    provenance: Provenance
