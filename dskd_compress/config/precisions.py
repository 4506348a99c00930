"""Recipe sections of the precisions of a bundle other than fp32."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dskd_compress.config.base import Fraction, NonNegative, Section


class CalibrationSection(Section):
    """Training images that ranges are measured on; evaluation images are never among them."""

    images: int = Field(512, ge=1, le=10_000, description="spread over the classes; all are in memory at once")
    seed: int | None = Field(None, description="that draws them; none: the recipe's")


class QuantizeSection(Section):
    """How fp16, bf16, int8 and fp8 are made of the fp32 graph."""

    producer: Literal["auto", "modelopt", "onnxruntime"] = Field(
        "auto", description="auto: ModelOpt where it is installed, else ONNX Runtime's tools"
    )
    method: Literal["max", "entropy", "percentile"] = Field(
        "max", description="calibration of int8: largest value, least information lost, or 99.99 % of the values"
    )
    rest: Literal["auto", "fp32", "fp16"] = Field(
        "auto", description="type of what int8 and fp8 do not quantise; auto: what suits the target"
    )
    keep: tuple[str, ...] = Field((), description="names of ONNX nodes that stay fp32 in every precision")
    search: bool = Field(True, description="find the layers that cost the accuracy and leave them in fp32")
    search_images: int = Field(256, ge=1, description="calibration images that the search scores on")
    max_kl: NonNegative = Field(
        0.01,
        description="good enough: mean KL to fp32 on those images, in nats; accuracy of so few images is noise",
    )
    max_kept: Fraction = Field(0.5, description="largest share of the layers that the search may put back")
