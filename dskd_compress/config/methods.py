"""Recipe sections of all methods but DSKD, and the keys that several methods share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dskd_export.settings import Fraction, NonNegative, Positive, Section

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
HashBits = Annotated[int | None, Field(ge=1, description="null: 32 a channel up to 256 channels, else 2048")]
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


class FitNetMethod(Section):
    """Squared error to the teacher's feature (FitNets, arXiv 1412.6550), in one stage as in the CRD protocol."""

    name: Literal["fitnet"] = "fitnet"
    tap: AnyTap = "auto"
    feature_norm: FeatureNorm = "none"
    stats_batches: StatsBatches = 50
    feature_weight: NonNegative = Field(100.0, description="weight of the squared error")
    ce_weight: CeWeight = 1.0
    logit_loss: LogitLoss = "none"
    logit_weight: LogitWeight = 1.0
    temperature: LogitTemperature = 4.0
    ramp_fraction: RampFraction = 0.0


class LshfmMethod(Section):
    """Mimicking the teacher's feature by squared error and hash bits (LSHFM, arXiv 2011.01424)."""

    name: Literal["lshfm"] = "lshfm"
    tap: Literal["vector", "map"] = Field(
        "vector", description="vector: pooled features before the classifier; map: last spatial map"
    )
    feature_norm: FeatureNorm = "teacher_stats"
    stats_batches: StatsBatches = 50
    lsh_loss: HashKind = "lshl2"
    lsh_on: HashOn = "pooled"
    hash_bits: HashBits = None
    hash_std: HashStd = "auto"
    hash_bias: HashBias = "zero"
    correct_only: CorrectOnly = True
    lsh_weight: LshWeight = 6.0
    ce_weight: CeWeight = 1.0
    logit_loss: LogitLoss = "none"
    logit_weight: LogitWeight = 1.0
    temperature: LogitTemperature = 4.0
    ramp_fraction: RampFraction = 0.0


class DiffKdMethod(Section):
    """Student features denoised by a diffusion model of the teacher's (DiffKD, arXiv 2305.15712)."""

    name: Literal["diffkd"] = "diffkd"
    tap: AnyTap = "auto"
    feature_norm: FeatureNorm = "none"
    stats_batches: StatsBatches = 50
    ae_channels: int | None = Field(
        None,
        ge=8,
        description="channels of a linear autoencoder that the teacher's features go through (published: 1024); "
        "null: no autoencoder. The denoiser of a teacher with 2048 channels costs more than the student",
    )
    start_step: StartStep = 400
    sample_steps: SampleSteps = 5
    feature_weight: NonNegative = Field(1.0, description="weight of the squared error to the denoised feature")
    diffusion_weight: NonNegative = Field(1.0, description="weight of the denoisers' own losses")
    reconstruction_weight: NonNegative = Field(1.0, description="weight of the autoencoder's own loss")
    denoised_logit_weight: NonNegative = Field(
        1.0, description="weight of the KL divergence to the denoised logits; 0 leaves their denoiser out"
    )
    ce_weight: CeWeight = 1.0
    logit_loss: LogitLoss = "none"
    logit_weight: LogitWeight = 1.0
    temperature: LogitTemperature = 4.0
    ramp_fraction: RampFraction = 0.0
