"""Recipe sections of the methods that read features, all but DSKD."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dskd_compress.config import method_keys as keys
from dskd_compress.config.base import NonNegative, Section


class FitNetMethod(Section):
    """Squared error to the teacher's feature (FitNets, arXiv 1412.6550), in one stage as in the CRD protocol."""

    name: Literal["fitnet"] = "fitnet"
    tap: keys.AnyTap = "auto"
    feature_norm: keys.FeatureNorm = "none"
    stats_batches: keys.StatsBatches = 50
    feature_weight: NonNegative = Field(100.0, description="weight of the squared error")
    ce_weight: keys.CeWeight = 1.0
    logit_loss: keys.LogitLoss = "none"
    logit_weight: keys.LogitWeight = 1.0
    temperature: keys.LogitTemperature = 4.0
    ramp_fraction: keys.RampFraction = 0.0


class LshfmMethod(Section):
    """Mimicking the teacher's feature by squared error and hash bits (LSHFM, arXiv 2011.01424)."""

    name: Literal["lshfm"] = "lshfm"
    tap: Literal["vector", "map"] = Field(
        "vector", description="vector: pooled features before the classifier; map: last spatial map"
    )
    feature_norm: keys.FeatureNorm = "teacher_stats"
    stats_batches: keys.StatsBatches = 50
    lsh_loss: keys.HashKind = "lshl2"
    lsh_on: keys.HashOn = "pooled"
    hash_bits: keys.HashBits = None
    hash_std: keys.HashStd = "auto"
    hash_bias: keys.HashBias = "zero"
    correct_only: keys.CorrectOnly = True
    lsh_weight: keys.LshWeight = 6.0
    ce_weight: keys.CeWeight = 1.0
    logit_loss: keys.LogitLoss = "none"
    logit_weight: keys.LogitWeight = 1.0
    temperature: keys.LogitTemperature = 4.0
    ramp_fraction: keys.RampFraction = 0.0


class DiffKdMethod(Section):
    """Student features denoised by a diffusion model of the teacher's (DiffKD, arXiv 2305.15712)."""

    name: Literal["diffkd"] = "diffkd"
    tap: keys.AnyTap = "auto"
    feature_norm: keys.FeatureNorm = "none"
    stats_batches: keys.StatsBatches = 50
    ae_channels: int | None = Field(
        None,
        ge=8,
        description="channels of a linear autoencoder that the teacher's features go through (published: 1024); "
        "none: no autoencoder. The denoiser of a teacher with 2048 channels costs more than the student",
    )
    start_step: keys.StartStep = 400
    sample_steps: keys.SampleSteps = 5
    feature_weight: NonNegative = Field(1.0, description="weight of the squared error to the denoised feature")
    diffusion_weight: NonNegative = Field(1.0, description="weight of the denoisers' own losses")
    reconstruction_weight: NonNegative = Field(1.0, description="weight of the autoencoder's own loss")
    denoised_logit_weight: NonNegative = Field(
        1.0, description="weight of the KL divergence to the denoised logits; 0 leaves their denoiser out"
    )
    ce_weight: keys.CeWeight = 1.0
    logit_loss: keys.LogitLoss = "none"
    logit_weight: keys.LogitWeight = 1.0
    temperature: keys.LogitTemperature = 4.0
    ramp_fraction: keys.RampFraction = 0.0
