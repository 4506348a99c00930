"""Recipe section of what the student and its smaller precisions may cost.

It stands beside `validate` and not in it: every stage that weighs one precision against another reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from dskd_compress.config.base import Fraction, Positive, Section
from dskd_export.benchmark.budget import SpeedBudget
from dskd_export.validation.gate import Budget


class PrecisionBudget(Section):
    """What one precision may cost; null takes the budget's own value."""

    top1_drop: Fraction | None = None
    worst_class_drop: Fraction | None = None
    agreement: Fraction | None = None
    mean_abs_relative: Positive | None = None
    size_mb: Positive | None = None


class Bf16Budget(PrecisionBudget):
    """What bf16, with eight bits of mantissa, may cost; null takes the budget's own value."""

    mean_abs_relative: Positive | None = 0.05


class EightBitBudget(PrecisionBudget):
    """What a precision of eight bits may cost; null takes the budget's own value."""

    top1_drop: Fraction | None = 0.02
    agreement: Fraction | None = 0.85
    mean_abs_relative: Positive | None = 0.15


_PRECISIONS = ("fp16", "bf16", "int8", "fp8")


class DeviceBudget(Section):
    """What one device asks for beside what all do, or in its place; null takes the budget's own value."""

    latency_p99_ms: Positive | None = None
    throughput_images_per_s: Positive | None = None
    energy_per_image_mj: Positive | None = None
    memory_mb: Positive | None = None
    size_mb: Positive | None = None
    top1_drop: Fraction | None = None


class BudgetSection(Section):
    """What the student may lose against its teacher, and a smaller precision against the student.

    `validate` ends with exit code 5 where one loses more, and with 6 where the images are too few to show that it
    does not: `student_drop`, `top1_drop` and `agreement` are judged by the end of their 95 % interval. A key that
    is written out holds for every precision that does not have it itself.
    """

    student_drop: Fraction | None = Field(
        0.02,
        description="accuracy that the student may lose against its teacher, a fraction, by its upper 95 % bound; "
        "null: not judged",
    )

    top1_drop: Fraction | None = Field(
        0.01, description="accuracy that may be lost against torch, a fraction, by its upper 95 % bound"
    )
    worst_class_drop: Fraction | None = Field(
        0.2,
        description="what no class of ten images or more may be shown to have lost, a fraction, by the lower 95 % "
        "bound",
    )
    agreement: Fraction | None = Field(
        0.95, description="share of images with torch's first class, by its lower 95 % bound"
    )
    mean_abs_relative: Positive | None = Field(0.01, description="mean logit difference / largest logit")
    size_mb: Positive | None = Field(None, description="of the model file, 1 MB = 10^6 bytes")
    latency_p99_ms: Positive | None = Field(
        None,
        description="by the upper 95 % bound; benchmark ends with exit code 5 where no model meets it all, with 6 "
        "where none is shown to",
    )
    throughput_images_per_s: Positive | None = Field(None, description="at least, by the lower 95 % bound")
    energy_per_image_mj: Positive | None = Field(None, description="by the upper 95 % bound")
    memory_mb: Positive | None = Field(
        None, description="of the GPU where the model is there, else of the process, 1 MB = 10^6 bytes"
    )
    batch: int = Field(1, ge=1, description="batch size whose speed and energy are held to the budget")
    part: Literal["engine", "with_preprocessing"] = Field("engine", description="what of a call is held to it")
    devices: dict[str, DeviceBudget] = Field(
        default_factory=dict, description="limits of single devices, by the name of their folder of results"
    )
    fp32: PrecisionBudget = Field(
        PrecisionBudget(), description="fp32 is held to the limits of validate; what stands here comes on top"
    )
    fp16: PrecisionBudget = PrecisionBudget()
    bf16: Bf16Budget = Bf16Budget()
    int8: EightBitBudget = EightBitBudget()
    fp8: EightBitBudget = EightBitBudget()

    @model_validator(mode="before")
    @classmethod
    def _what_is_written_wins(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        written = [key for key in PrecisionBudget.model_fields if key in values]
        settled = dict(values)
        for precision in _PRECISIONS:
            own = values.get(precision, {})
            if isinstance(own, Mapping):
                settled[precision] = {**dict.fromkeys(written), **own}
        return settled

    def of(self, precision: str, device: str | None = None) -> Budget:
        """What a precision may cost on a device; of fp32 only what stands under its own name, or the device's.

        Args:
            precision: of the model.
            device: by the name of its folder of results; None: what holds everywhere.
        """
        own: PrecisionBudget = getattr(self, precision, PrecisionBudget())
        keys = PrecisionBudget.model_fields
        values = {key: getattr(own, key) for key in keys}
        if precision != "fp32":
            values = {key: getattr(self, key) if values[key] is None else values[key] for key in keys}
        of_device = self.devices.get(device or "", DeviceBudget())
        values |= {
            key: getattr(of_device, key) for key in ("top1_drop", "size_mb") if getattr(of_device, key) is not None
        }
        return Budget(**values)

    def speed(self, device: str | None = None) -> SpeedBudget:
        """What a timed student may cost on a device."""
        own = self.devices.get(device or "", DeviceBudget())
        keys = SpeedBudget.model_fields
        common = {key: getattr(self, key) for key in keys if key != "size_mb"}  # of all devices validate judges it
        return SpeedBudget(
            **{key: common.get(key) if getattr(own, key) is None else getattr(own, key) for key in keys}
        )
