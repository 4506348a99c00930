"""Recipe section of quantisation-aware tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dskd_compress.config.base import Positive, Section


class TuneSection(Section):
    """Quantisation-aware tuning: a short distillation with simulated quantisation."""

    precision: Literal["int8", "fp8"] = Field("int8", description="target precision of the tuning")
    epochs: int = Field(2, ge=1)
    lr: Positive | None = Field(None, description="none: a hundredth of train.lr")
    amp: Literal["fp32", "bf16", "fp16"] | None = Field(
        None, description="autocast type of the tuning; none: train.precision"
    )
    calibration_batches: int = Field(8, ge=1, description="training batches that calibrate the activation ranges")
