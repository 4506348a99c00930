"""Recipe section of DSKD: every choice that the paper leaves open."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from dskd_compress.config import methods as keys
from dskd_export.settings import Fraction, KeyConflict, NonNegative, Positive, Section

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
        description="largest rms of the guidance relative to the rms of the predicted noise; null: no limit",
    )
    guide_temperature: Positive = Field(1.0, description="softens the teacher's target")
    start: Literal["scaled", "raw", "sdedit"] = Field(
        "scaled", description="scaled: sqrt(abar) u; raw: u; sdedit: sqrt(abar) u + sqrt(1 - abar) noise"
    )
    start_scale: Literal["teacher", "own"] = Field(
        "teacher",
        description="teacher: scale the student's features to the rms of the teacher's before they are denoised; "
        "own: unscaled, and target and student may drive each other up",
    )
    start_step: keys.StartStep = 400
    sample_steps: keys.SampleSteps = 5
    draws: int = Field(
        1, ge=1, le=64, description="denoised features that are averaged; above 1 for start sdedit only"
    )
    detach_target: bool = Field(True, description="stop the gradient at the denoised feature")
    target_mix: Fraction = Field(
        0.0, description="weight of the teacher's own feature in the target; 0: denoised alone, 1: that of lshfm"
    )
    feature_norm: keys.FeatureNorm = "teacher_stats"
    stats_batches: keys.StatsBatches = 50
    lsh_loss: keys.HashKind = "lshl2"
    lsh_on: keys.HashOn = "pooled"
    hash_bits: keys.HashBits = None
    hash_std: keys.HashStd = "auto"
    hash_bias: keys.HashBias = "zero"
    correct_only: keys.CorrectOnly = False
    lsh_weight: keys.LshWeight = 2.0
    diffusion_weight: NonNegative = Field(1.0, description="weight of the denoiser's own loss")
    head_weight: NonNegative = Field(
        1.0, description="weight of the head alignment, the anchor without which nothing is learned"
    )
    head_schedule: Schedule = Field("constant", description="the anchor's weight over the training, as for s")
    ce_weight: keys.CeWeight = 1.0
    logit_loss: keys.LogitLoss = "dist"
    logit_weight: keys.LogitWeight = 1.0
    temperature: keys.LogitTemperature = 4.0
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
    ramp_fraction: keys.RampFraction = 0.05

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        if isinstance(values, dict):
            preset = values.get("preset", "default")
            # A preset that does not exist is refused by the field itself, also where it is no text.
            return {**(DSKD_PRESETS.get(preset, {}) if isinstance(preset, str) else {}), **values}
        return values

    @model_validator(mode="after")
    def _check_draws(self) -> DskdMethod:
        if self.draws > 1 and self.start != "sdedit":
            raise KeyConflict(
                f"draws {self.draws} needs start sdedit: with start {self.start} all draws are alike",
                "start=sdedit",
            )
        return self
