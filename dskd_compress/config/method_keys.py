"""Types of the keys that several methods share, with their descriptions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dskd_compress.config.base import Fraction, NonNegative

CeWeight = Annotated[NonNegative, Field(description="weight of the cross-entropy")]
LogitLoss = Annotated[
    Literal["none", "kl", "dist", "dkd"],
    Field(description="added logit distillation; dist and dkd with the weights between their parts as published"),
]
LogitWeight = Annotated[float, Field(ge=0, description="weight of the added logit distillation")]
LogitTemperature = Annotated[float, Field(gt=0, description="softens the logits of the added distillation")]
RampFraction = Annotated[
    Fraction, Field(description="part of the training over which the distillation terms rise to their weight")
]

AnyTap = Annotated[
    Literal["auto", "vector", "map"],
    Field(description="auto: the last spatial map where both models have one, else the pooled vector"),
]
FeatureNorm = Annotated[
    Literal["teacher_stats", "none"],
    Field(
        description="teacher_stats: features standardised by the teacher's channel statistics; none: unchanged, "
        "as published"
    ),
]
StatsBatches = Annotated[int, Field(ge=1, description="training batches for those statistics")]

HashKind = Annotated[Literal["lshl2", "lsh", "l2"], Field(description="hash loss, squared error, or both")]
HashOn = Annotated[Literal["pooled", "location"], Field(description="for map taps: pool first or hash each place")]
HashBits = Annotated[int | None, Field(ge=1, description="none: 32 a channel up to 256 channels, else 2048")]
HashStd = Annotated[
    Literal["auto", "fc"],
    Field(
        description="std of the hash directions: 1/sqrt(channels), or that of the teacher's classifier (as "
        "published, for feature_norm none)"
    ),
]
HashBias = Annotated[
    Literal["zero", "median"], Field(description="zero, or minus the median of the teacher's hash logits")
]
CorrectOnly = Annotated[bool, Field(description="distil only where the teacher is right")]
LshWeight = Annotated[NonNegative, Field(description="beta")]

StartStep = Annotated[int, Field(ge=1, lt=1000, description="t at which the chain starts, of 1000")]
SampleSteps = Annotated[int, Field(ge=1, le=50, description="denoiser calls of the chain")]
