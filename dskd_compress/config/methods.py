"""Recipe sections of the methods that read labels and logits only."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dskd_compress.config.base import Fraction, NonNegative, Positive, Section
from dskd_compress.config.method_keys import CeWeight


class NoneMethod(Section):
    """Cross-entropy only: the student that every distillation has to beat."""

    name: Literal["none"] = "none"


class KdMethod(Section):
    """Logit distillation (Hinton et al. 2015, arXiv 1503.02531)."""

    name: Literal["kd"] = "kd"
    ce_weight: CeWeight = 0.1
    kd_weight: NonNegative = Field(0.9, description="weight of the KL divergence, times temperature squared")
    temperature: Positive = Field(4.0, description="tau, softens both")


class DkdMethod(Section):
    """Logit distillation with target and other classes apart (DKD, arXiv 2203.08679)."""

    name: Literal["dkd"] = "dkd"
    ce_weight: CeWeight = 1.0
    target_weight: NonNegative = Field(1.0, description="alpha, of the target class against the rest")
    other_weight: NonNegative = Field(
        8.0, description="beta, among the other classes; published: 1 to 8 on CIFAR-100, 0.5 to 2 on ImageNet"
    )
    temperature: Positive = Field(4.0, description="published: 4 on CIFAR-100, 1 on ImageNet")
    ramp_fraction: Fraction = Field(
        0.083,
        description="part of the training over which the distillation rises to its weight (20 of 240 epochs)",
    )


class DistMethod(Section):
    """Correlation with the teacher within images and within classes (DIST, arXiv 2205.10536)."""

    name: Literal["dist"] = "dist"
    ce_weight: CeWeight = 1.0
    inter_weight: NonNegative = Field(2.0, description="beta, of the relations between classes in an image")
    intra_weight: NonNegative = Field(2.0, description="gamma, of the relations between images in a class")
    temperature: Positive = Field(4.0, description="published: 4 on CIFAR-100, 1 on ImageNet")
