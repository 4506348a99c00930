"""Recipe sections of the distillation methods, all but DSKD."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dskd_compress.config.base import NonNegative, Positive, Section


class NoneMethod(Section):
    """Cross-entropy only: the student that every distillation has to beat."""

    name: Literal["none"] = "none"


class KdMethod(Section):
    """Logit distillation (Hinton et al. 2015, arXiv 1503.02531)."""

    name: Literal["kd"] = "kd"
    ce_weight: NonNegative = Field(0.1, description="weight of the cross-entropy")
    kd_weight: NonNegative = Field(0.9, description="weight of the KL divergence, times temperature squared")
    temperature: Positive = Field(4.0)
