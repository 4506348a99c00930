"""Recipe sections of a training: optimisation, tuning, diagnosis, trackers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from dskd_export.documents.training import FindingKind
from dskd_export.settings import Fraction, KeyConflict, NonNegative, Positive, Section


class TrainSection(Section):
    """Optimisation of one model."""

    epochs: int = Field(30, ge=1)
    batch_size: int = Field(
        64,
        ge=2,
        description="images a step, over all processes and micro-batches: a multiple of their number",
    )
    grad_accumulation: int = Field(
        1,
        ge=1,
        description="micro-batches of a step, for batches that do not fit. Equal to the whole batch where nothing "
        "is taken over the batch: batch norm, and scales that a method takes from it, see a micro-batch",
    )
    optimizer: str = Field("sgd", description="any timm optimizer: sgd, adamw, lamb, ...")
    lr: Positive = Field(0.05, description="peak learning rate")
    weight_decay: NonNegative = Field(5e-4)
    decay_norm_and_bias: bool = Field(
        False, description="decay biases and normalisation too, as older protocols do; timm leaves them out"
    )
    momentum: Fraction = Field(0.9)
    scheduler: Literal["cosine", "step", "multistep", "poly", "constant"] = Field("cosine")
    milestones: tuple[int, ...] = Field((), description="epochs of the drops, for multistep")
    decay_epochs: Positive = Field(30.0, description="epochs between drops, for step")
    decay_rate: Positive = Field(0.1, description="factor of a drop, for step and multistep; poly is linear")
    warmup_epochs: int = Field(
        0, ge=0, description="epochs of linear warm-up; --epochs shortens it where it would not fit"
    )
    warmup_lr: NonNegative = Field(1e-5)
    min_lr: NonNegative = Field(0.0)
    label_smoothing: Fraction = Field(0.0)
    freeze_batch_norm: bool = Field(
        False,
        description="batch norms keep their running statistics, scale and shift: for small batches, or weights "
        "whose statistics fit more images than yours. Never with random weights: nothing would normalise",
    )
    clip_grad: Positive | None = Field(
        5.0,
        description="largest gradient norm over student and training-only modules together; null: no clipping",
    )
    ema_decay: float | None = Field(None, gt=0, lt=1, description="decay of the weight average; null: no average")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="autocast type; fp16 adds a loss scaler"
    )
    channels_last: bool = Field(False, description="NHWC memory layout, faster for most CNNs on GPUs")
    grad_checkpointing: bool = Field(
        False,
        description="compute the student's activations twice instead of keeping them: less memory, about a third "
        "more time; running statistics of batch norm then move twice a step",
    )
    compile: bool = Field(False, description="torch.compile of student and training-only modules")
    device: str = Field(
        "auto", description="auto | cpu | cuda | cuda:1; under torchrun each process takes its own GPU"
    )
    threads: int | None = Field(
        None, ge=1, description="torch threads on the CPU; null: one for each core that this process may use"
    )
    validate_every: int = Field(
        1, ge=1, description="epochs between two validations; the last epoch is always validated"
    )
    checkpoint_steps: int | None = Field(
        None, ge=1, description="also save within an epoch every so many steps; null: at each epoch's end"
    )
    keep_checkpoints: int = Field(
        1, ge=1, description="complete states to keep: the newest, and older ones should it turn out damaged"
    )
    distributed_timeout_s: Positive = Field(
        1800.0,
        description="seconds to wait for the other processes, one of which may be validating",
    )

    @model_validator(mode="after")
    def _check_accumulation(self) -> TrainSection:
        if self.batch_size % self.grad_accumulation:
            raise KeyConflict(
                f"grad_accumulation {self.grad_accumulation} does not divide batch_size {self.batch_size}",
                "grad_accumulation=1",
            )
        if self.batch_size == self.grad_accumulation:  # some methods take statistics of a micro-batch
            raise ValueError(
                f"grad_accumulation {self.grad_accumulation} leaves one image in a micro-batch; "
                f"it may be {self.batch_size // 2} at most, or fewer"
            )
        return self

    @model_validator(mode="after")
    def _check_schedule(self) -> TrainSection:
        if self.scheduler == "multistep" and not self.milestones:
            raise ValueError("scheduler multistep needs milestones, for example [150, 180, 210]")
        if self.warmup_epochs >= self.epochs:
            raise KeyConflict(
                f"warmup_epochs {self.warmup_epochs} must be smaller than epochs {self.epochs}", "warmup_epochs=0"
            )
        return self


class TuneSection(Section):
    """Quantisation-aware tuning: a short distillation with simulated quantisation."""

    precision: Literal["int8", "fp8"] = Field("int8", description="target precision of the tuning")
    epochs: int = Field(2, ge=1)
    lr: Positive | None = Field(None, description="null: a hundredth of train.lr")
    amp: Literal["fp32", "bf16", "fp16"] | None = Field(
        None, description="autocast type of the tuning; null: train.precision"
    )
    calibration_batches: int = Field(8, ge=1, description="training batches that calibrate the activation ranges")


class DiagnosisSection(Section):
    """Diagnosis of a distillation: reports faults that prevent learning within 100 steps."""

    enabled: bool = Field(True, description="check for faults; the student does not change")
    every_steps: int = Field(
        50,
        ge=1,
        description="steps between two full checks, after steps 1 to 3; with train.compile each costs one "
        "backward pass per loss term",
    )
    stop_on: tuple[FindingKind, ...] = Field(
        ("teacher_mode", "teacher_not_frozen", "teacher_changed", "not_optimized", "class_order"),
        description="faults that end the training; the others are warnings",
    )


class TrackingSection(Section):
    """Experiment trackers, in addition to the JSON lines. The default uses no network."""

    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field(
        (), description="each needs the extra of its name; files in trackers/ of the run folder"
    )
    every_steps: int = Field(10, ge=1, description="steps between two records of the losses")
    project: str = Field("dskd-compress", min_length=1, description="project of wandb, experiment of mlflow")
    run_name: str | None = Field(None, description="null: the recipe's name")
    wandb_mode: Literal["offline", "online"] = Field("offline", description="online sends to the wandb server")
    mlflow_uri: str | None = Field(
        None, description="tracking server or store of mlflow; null: trackers/mlflow of the run folder"
    )
