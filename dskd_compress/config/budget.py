"""Recipe section of what a smaller precision may cost.

It stands beside `validate` and not in it: every stage that weighs one precision against another reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from dskd_compress.config.base import Fraction, Positive, Section
from dskd_export.gate import Budget


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


class BudgetSection(Section):
    """What a smaller precision may cost; `validate` ends with exit code 5 where one costs more.

    `top1_drop` and `agreement` are held by the end of their 95 % interval: with few images a model fails
    although its value is fine. A key that is written out holds for every precision that does not have it
    itself.
    """

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

    def of(self, precision: str) -> Budget:
        """What a precision may cost; of fp32 only what stands under its own name."""
        own: PrecisionBudget = getattr(self, precision, PrecisionBudget())
        keys = PrecisionBudget.model_fields
        values = {key: getattr(own, key) for key in keys}
        if precision != "fp32":
            values = {key: getattr(self, key) if values[key] is None else values[key] for key in keys}
        return Budget(**values)
