"""Recipe sections of the methods that read features, all but DSKD."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dskd_compress.config.base import Fraction, NonNegative, Section
from dskd_compress.config.logit import LogitLoss, LogitTemperature, LogitWeight


class FitNetMethod(Section):
    """Squared error to the teacher's feature (FitNets, arXiv 1412.6550), in one stage as in the CRD protocol."""

    name: Literal["fitnet"] = "fitnet"
    tap: Literal["auto", "vector", "map"] = Field(
        "auto", description="auto: the last spatial map where both models have one, else the pooled vector"
    )
    feature_norm: Literal["teacher_stats", "none"] = Field(
        "none", description="teacher_stats: standardised by the teacher's channel statistics; none: as it is"
    )
    stats_batches: int = Field(50, ge=1, description="training batches for those statistics")
    feature_weight: NonNegative = Field(100.0, description="weight of the squared error")
    ce_weight: NonNegative = Field(1.0, description="weight of the cross-entropy")
    logit_loss: LogitLoss = "none"
    logit_weight: LogitWeight = 1.0
    temperature: LogitTemperature = 4.0
    ramp_fraction: Fraction = Field(
        0.0, description="share of the training over which the distillation terms rise to their weight"
    )


class LshfmMethod(Section):
    """Mimicking the teacher's feature by squared error and hash bits (LSHFM, arXiv 2011.01424)."""

    name: Literal["lshfm"] = "lshfm"
    tap: Literal["vector", "map"] = Field(
        "vector", description="vector: pooled features before the classifier; map: last spatial map"
    )
    feature_norm: Literal["teacher_stats", "none"] = Field(
        "teacher_stats",
        description="teacher_stats: standardised by the teacher's channel statistics, as for dskd; "
        "none: as it is, as published",
    )
    stats_batches: int = Field(50, ge=1, description="training batches for those statistics")
    lsh_loss: Literal["lshl2", "lsh", "l2"] = Field("lshl2", description="hash loss, squared error, or both")
    lsh_on: Literal["pooled", "location"] = Field(
        "pooled", description="for map taps: pool first or hash each place"
    )
    hash_bits: int | None = Field(None, ge=1, description="none: 32 a channel up to 256 channels, else 2048")
    hash_std: Literal["auto", "fc"] = Field(
        "auto",
        description="std of the hash directions: 1/sqrt(channels), or that of the teacher's classifier "
        "(as published, for feature_norm none)",
    )
    hash_bias: Literal["zero", "median"] = Field(
        "zero", description="zero, or minus the median of the teacher's hash logits"
    )
    correct_only: bool = Field(True, description="distil only where the teacher is right")
    lsh_weight: NonNegative = Field(6.0, description="beta")
    ce_weight: NonNegative = Field(1.0, description="weight of the cross-entropy")
    logit_loss: LogitLoss = "none"
    logit_weight: LogitWeight = 1.0
    temperature: LogitTemperature = 4.0
    ramp_fraction: Fraction = Field(
        0.0, description="share of the training over which the distillation terms rise to their weight"
    )


class DiffKdMethod(Section):
    """Student features denoised by a diffusion model of the teacher's (DiffKD, arXiv 2305.15712)."""

    name: Literal["diffkd"] = "diffkd"
    tap: Literal["auto", "vector", "map"] = Field(
        "auto", description="auto: the last spatial map where both models have one, else the pooled vector"
    )
    feature_norm: Literal["teacher_stats", "none"] = Field(
        "none", description="teacher_stats: standardised by the teacher's channel statistics; none: as published"
    )
    stats_batches: int = Field(50, ge=1, description="training batches for those statistics")
    ae_channels: int | None = Field(
        None,
        ge=8,
        description="channels of a linear autoencoder that the teacher's features go through (published: 1024); "
        "none: no autoencoder. The denoiser of a teacher with 2048 channels costs more than the student",
    )
    start_step: int = Field(400, ge=1, lt=1000, description="t at which the chain starts, of 1000")
    sample_steps: int = Field(5, ge=1, le=50, description="denoiser calls of the chain")
    feature_weight: NonNegative = Field(1.0, description="weight of the squared error to the denoised feature")
    diffusion_weight: NonNegative = Field(1.0, description="weight of the denoisers' own losses")
    reconstruction_weight: NonNegative = Field(1.0, description="weight of the autoencoder's own loss")
    denoised_logit_weight: NonNegative = Field(
        1.0, description="weight of the KL divergence to the denoised logits; 0 leaves their denoiser out"
    )
    ce_weight: NonNegative = Field(1.0, description="weight of the cross-entropy")
    logit_loss: LogitLoss = "none"
    logit_weight: LogitWeight = 1.0
    temperature: LogitTemperature = 4.0
    ramp_fraction: Fraction = Field(
        0.0, description="share of the training over which the distillation terms rise to their weight"
    )
