"""Recipe section of DSKD: every choice that the paper leaves open."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from dskd_compress.config.base import Fraction, KeyConflict, NonNegative, Positive, Section
from dskd_compress.config.logit import LogitLoss, LogitTemperature, LogitWeight

Schedule = Literal["constant", "linear_decay", "linear_growth"]

# What the paper's available text does not settle. Most choices are measured in recipes/README.md.
DSKD_PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        "guide_target": "label",
        "guide_on": "xt",
        "guide_spatial": "raw",
        "start": "raw",
        "start_scale": "own",
        "feature_norm": "none",
        "hash_std": "fc",
        "lsh_weight": 6.0,
        "denoiser_norm": "bn",
        "denoiser_skip": False,
        "denoiser_width": 4.0,
        "denoiser_max_hidden": 8192,
        "ramp_fraction": 0.0,
        "head_weight": 0.0,
        "logit_loss": "none",
        "tap": "map",
    },
}

PRESET_KEYS = frozenset(key for preset in DSKD_PRESETS.values() for key in preset)
"""Keys that the presets set; a key that is written out wins over them."""


def drop_preset_keys(section: dict[str, Any]) -> None:
    """Remove the keys that presets set, so that a newly chosen preset applies."""
    for key in PRESET_KEYS & section.keys():
        del section[key]


class DskdMethod(Section):
    """Teacher-guided student diffusion self-knowledge distillation (arXiv 2602.02107), reconstructed."""

    name: Literal["dskd"] = "dskd"
    preset: Literal["default", "paper"] = Field(
        "default",
        description="default: the choices that worked; paper: the literal reading. Explicit keys win",
    )
    denoiser_data: Literal["teacher", "student", "both"] = Field(
        "teacher", description="features that the denoiser is trained on"
    )
    tap: Literal["vector", "map", "auto"] = Field(
        "vector",
        description="vector: pooled features before the classifier; map: last spatial map, as good and "
        "costlier in our measurement; auto: map where both are CNNs, the teacher's head pools by the mean and has "
        "at most 1024 channels, else vector",
    )
    guide_target: Literal["teacher", "label", "teacher_if_correct"] = Field(
        "teacher", description="distribution that the teacher's classifier is guided towards"
    )
    guide_on: Literal["x0", "xt"] = Field(
        "x0", description="where the classifier reads: the one-step estimate or the noisy sample"
    )
    guide_spatial: Literal["pooled", "raw"] = Field(
        "pooled", description="pooled: the gradient on a map is multiplied by its grid size"
    )
    guide_scale: NonNegative = Field(1.0, description="s; 0 is plain DDIM")
    guide_schedule: Schedule = Field(
        "constant", description="s over the training: as it is, falling to 0 at the end, or rising from 0"
    )
    guide_clip: Positive | None = Field(
        1.0,
        description="largest rms of the guidance relative to the rms of the predicted noise; none: no limit",
    )
    guide_temperature: Positive = Field(1.0, description="softens the teacher's target")
    start: Literal["scaled", "raw", "sdedit"] = Field(
        "scaled", description="scaled: sqrt(abar) u; raw: u; sdedit: sqrt(abar) u + sqrt(1 - abar) noise"
    )
    start_scale: Literal["teacher", "own"] = Field(
        "teacher",
        description="teacher: the student's features are brought to the rms of the teacher's before they are "
        "denoised; own: left as they are, and target and student may drive each other up",
    )
    start_step: int = Field(400, ge=1, lt=1000, description="t at which the chain starts, of 1000")
    sample_steps: int = Field(5, ge=1, le=50, description="denoiser calls of the chain")
    draws: int = Field(
        1, ge=1, le=64, description="denoised features that are averaged; above 1 for start sdedit only"
    )
    detach_target: bool = Field(True, description="stop the gradient at the denoised feature")
    target_mix: Fraction = Field(
        0.0, description="share of the teacher's own feature in the target; 0: denoised alone, 1: that of lshfm"
    )
    feature_norm: Literal["teacher_stats", "none"] = Field(
        "teacher_stats", description="space of the features: standardised by the teacher's channel statistics"
    )
    stats_batches: int = Field(50, ge=1, description="training batches for those statistics")
    lsh_loss: Literal["lshl2", "lsh", "l2"] = Field("lshl2", description="hash loss, squared error, or both")
    lsh_on: Literal["pooled", "location"] = Field(
        "pooled", description="for map taps: pool first or hash each place"
    )
    hash_bits: int | None = Field(None, ge=1, description="none: 32 a channel up to 256 channels, else 2048")
    hash_std: Literal["auto", "fc"] = Field(
        "auto",
        description="std of the hash directions: 1/sqrt(channels), or that of the teacher's classifier",
    )
    hash_bias: Literal["zero", "median"] = Field(
        "zero", description="zero, or minus the median of the teacher's hash logits"
    )
    correct_only: bool = Field(False, description="distil only where the teacher is right")
    lsh_weight: NonNegative = Field(2.0, description="beta")
    diffusion_weight: NonNegative = Field(1.0, description="weight of the denoiser's own loss")
    head_weight: NonNegative = Field(
        1.0, description="weight of the head alignment, the anchor without which nothing is learned"
    )
    head_schedule: Schedule = Field("constant", description="the anchor's weight over the training, as for s")
    ce_weight: NonNegative = Field(1.0, description="weight of the cross-entropy")
    logit_loss: LogitLoss = "dist"
    logit_weight: LogitWeight = 1.0
    temperature: LogitTemperature = 4.0
    denoiser_norm: Literal["gn", "bn", "ln"] = Field("gn", description="normalisation inside the denoiser")
    denoiser_width: Positive = Field(2.0, description="hidden width of the vector denoiser, times its channels")
    denoiser_max_hidden: int = Field(
        512,
        ge=32,
        description="largest hidden width of the vector denoiser; the map denoiser's is a quarter of it",
    )
    denoiser_skip: bool = Field(
        True,
        description="the denoiser predicts a correction to its input, which is mostly noise; DiffKD's has no skip",
    )
    ramp_fraction: Fraction = Field(
        0.05, description="share of the training over which the distillation terms rise to their weight"
    )

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        if isinstance(values, dict):
            preset = values.get("preset", "default")
            # A preset that does not exist is refused by the field itself, also where it is no text.
            return {**(DSKD_PRESETS.get(preset, {}) if isinstance(preset, str) else {}), **values}
        return values

    @model_validator(mode="after")
    def _draws(self) -> DskdMethod:
        if self.draws > 1 and self.start != "sdedit":
            raise KeyConflict(
                f"draws {self.draws} needs start sdedit: with start {self.start} all draws are alike",
                "start=sdedit",
            )
        return self
