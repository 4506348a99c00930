"""The recipe: one typed, frozen section for each concern.

A field's description is its help text: `recipes init` writes it as the comment and
`recipes schema` publishes it. Core code takes a section, never the whole recipe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class AugmentSection(Section):
    """Training augmentation; timm's transforms, applied by a seed of (recipe seed, epoch, image)."""

    hflip: Fraction = Field(0.5, description="probability of a horizontal flip; 0 for digits and text")
    vflip: Fraction = Field(0.0, description="probability of a vertical flip")
    scale: tuple[Positive, Positive] = Field((0.35, 1.0), description="area range of the random resized crop")
    ratio: tuple[Positive, Positive] = Field((0.75, 1.3333), description="aspect ratio range of the crop")
    color_jitter: NonNegative = Field(0.0, description="strength of brightness, contrast, saturation jitter")
    auto_augment: str | None = Field(None, description="timm policy, for example rand-m9-mstd0.5")
    erase: Fraction = Field(0.0, description="probability of random erasing")
    mixup: NonNegative = Field(0.0, description="mixup alpha, 0 is off")
    cutmix: NonNegative = Field(0.0, description="cutmix alpha, 0 is off")

    @model_validator(mode="after")
    def _ordered(self) -> AugmentSection:
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: the first number must not be larger than the second")
        return self


class DataSection(Section):
    """Where the images come from and how they become tensors."""

    source: str = Field(
        "digits",
        description="digits | a folder with train/ and val/ | one folder of classes | .npz | .tar | "
        "hfds/NAME, wds/PATH, tfds/NAME (timm readers)",
    )
    train_split: str = Field("train", description="name of the training split or folder")
    val_split: str | None = Field(
        None,
        description="name of the validation split or folder; none: val, validation or test, whichever is there",
    )
    val_fraction: float = Field(
        0.2, gt=0, lt=1, description="share held out, per class, where the source has no validation split"
    )
    split_seed: int = Field(0, description="seed of that split; the training seed does not change it")
    input_size: int | None = Field(None, ge=8, description="square input in pixels; none: the student's own size")
    interpolation: Literal["bilinear", "bicubic", "nearest", "lanczos"] | None = Field(
        None, description="none: the student's own"
    )
    mean: tuple[float, float, float] | None = Field(
        None, description="RGB mean in [0, 1]; none: the student's own"
    )
    std: tuple[Positive, Positive, Positive] | None = Field(None, description="RGB std; none: the student's own")
    crop_pct: float | None = Field(None, gt=0, le=1, description="centre crop; none: the student's own")
    crop_mode: Literal["center", "squash", "border"] | None = Field(None, description="none: the student's own")
    workers: int = Field(2, ge=0, description="processes that decode images; 0 decodes in the training process")
    max_unreadable: Fraction = Field(
        0.001, description="share of unreadable images tolerated before the run stops"
    )
    augment: AugmentSection = AugmentSection()


class TrainSection(Section):
    """Optimisation of one model."""

    epochs: int = Field(30, ge=1)
    batch_size: int = Field(64, ge=2, description="images a step")
    optimizer: str = Field("sgd", description="any timm optimizer: sgd, adamw, lamb, ...")
    lr: Positive = Field(0.05, description="peak learning rate")
    weight_decay: NonNegative = Field(5e-4)
    momentum: Fraction = Field(0.9)
    scheduler: Literal["cosine", "step", "multistep", "poly", "constant"] = Field("cosine")
    milestones: tuple[int, ...] = Field((), description="epochs of the drops, for multistep")
    decay_epochs: Positive = Field(30.0, description="epochs between drops, for step")
    decay_rate: Positive = Field(0.1, description="factor of a drop, for step and multistep; poly is linear")
    warmup_epochs: int = Field(0, ge=0, description="epochs of linear warm-up")
    warmup_lr: NonNegative = Field(1e-5)
    min_lr: NonNegative = Field(0.0)
    label_smoothing: Fraction = Field(0.0)
    clip_grad: Positive | None = Field(
        5.0,
        description="largest gradient norm over student and training-only modules together; none: no clipping",
    )
    ema_decay: float | None = Field(None, gt=0, lt=1, description="decay of the weight average; none: no average")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="autocast type; fp16 adds a loss scaler"
    )
    channels_last: bool = Field(False, description="NHWC memory layout, faster for most CNNs on GPUs")
    device: str = Field("auto", description="auto | cpu | cuda | cuda:1")
    threads: int | None = Field(None, ge=1, description="torch threads on the CPU; none: all cores")
    checkpoint_steps: int | None = Field(
        None, ge=1, description="also save within an epoch every so many steps; none: at each epoch's end"
    )

    @model_validator(mode="after")
    def _milestones(self) -> TrainSection:
        if self.scheduler == "multistep" and not self.milestones:
            raise ValueError("scheduler multistep needs milestones, for example [150, 180, 210]")
        if self.warmup_epochs >= self.epochs:
            raise ValueError("warmup_epochs must be smaller than epochs")
        return self


class ModelSection(Section):
    """A timm classifier."""

    name: str = Field(description="timm architecture, or hf-hub:OWNER/NAME")
    pretrained: bool = Field(True, description="start from timm's pretrained weights")
    checkpoint: Path | None = Field(
        None, description="local weights: .safetensors, or a torch file of tensors only"
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="more arguments of timm.create_model")

    @model_validator(mode="after")
    def _one_source(self) -> ModelSection:
        if self.checkpoint is not None and self.pretrained:
            # A checkpoint replaces the pretrained weights; asking the hub for them first would need a network.
            object.__setattr__(self, "pretrained", False)
        return self


class TeacherSection(ModelSection):
    """The model that teaches."""

    train: TrainSection | None = Field(
        None, description="train the teacher on the data first; none: its weights are already good"
    )


class StudentSection(ModelSection):
    """The model that is deployed."""

    pretrained: bool = Field(False, description="start from timm's pretrained weights")


class NoneMethod(Section):
    """Cross-entropy only: the student that every distillation has to beat."""

    name: Literal["none"] = "none"


class KdMethod(Section):
    """Logit distillation (Hinton et al. 2015, arXiv 1503.02531)."""

    name: Literal["kd"] = "kd"
    ce_weight: NonNegative = Field(0.1, description="weight of the cross-entropy")
    kd_weight: NonNegative = Field(0.9, description="weight of the KL divergence, times temperature squared")
    temperature: Positive = Field(4.0)


# Row numbers: the table of choices that the paper's available text does not settle (dskd README).
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
        "kd_weight": 0.0,
        "tap": "map",
    },
}


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
    tap: Literal["auto", "vector", "map"] = Field(
        "auto",
        description="vector: pooled features before the classifier; map: last spatial map; "
        "auto: map where both are CNNs, the teacher's head pools by the mean and has at most 1024 channels, "
        "else vector",
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
    detach_target: bool = Field(True, description="stop the gradient at the denoised feature")
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
    ce_weight: NonNegative = Field(1.0, description="weight of the cross-entropy")
    kd_weight: NonNegative = Field(1.0, description="weight of an added logit KL; 0 is DSKD alone")
    temperature: Positive = Field(4.0, description="of the added logit KL")
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


Method = Annotated[Union[NoneMethod, KdMethod, DskdMethod], Field(discriminator="name")]


class ExportSection(Section):
    """From the student to the bundle."""

    opset: int = Field(20, ge=18, le=21, description="ONNX operator set; 20 is what TensorRT 10.3 reads")
    golden_images: int = Field(16, ge=1, le=256, description="real inputs kept with their reference logits")
    teacher: bool = Field(True, description="also export the teacher, beside the bundle, to compare it")


class ValidateSection(Section):
    """Limits of the gate; `validate` ends with exit code 5 when one is crossed."""

    images: int | None = Field(None, ge=1, description="images of the validation set to use; none: all")
    batches: tuple[int, ...] = Field((1, 3, 8), min_length=1, description="batch sizes for parity")
    max_abs_relative: Positive = Field(1e-4, description="largest logit difference / largest logit")
    min_cosine: float = Field(0.9999, ge=-1, le=1)
    max_kl: NonNegative = Field(1e-4, description="nats, the worst image")
    min_agreement: Fraction = Field(1.0, description="share of images with the same first class")
    max_top1_drop: Fraction = Field(0.005, description="accuracy that the exported student may lose against torch")
    max_pixel_error: NonNegative = Field(
        1.0, description="largest difference of the torch-free preprocessing from timm's, in 1/255"
    )


class BenchmarkSection(Section):
    """What is timed."""

    batches: tuple[int, ...] = Field((1, 8), min_length=1)
    runners: tuple[Literal["torch", "onnxruntime"], ...] = Field(("torch", "onnxruntime"), min_length=1)
    providers: tuple[Literal["auto", "cpu", "cuda"], ...] = Field(
        ("auto",), min_length=1, description="auto: the CPU, and CUDA where it is present"
    )
    teacher: bool = Field(True, description="time the teacher as well")
    threads: int | None = Field(None, ge=1, description="CPU threads; none: all cores")
    min_seconds: Positive = Field(3.0, description="least time measured for a cell")
    min_iterations: int = Field(50, ge=10, description="fewest calls measured for a cell")
    max_warmup_seconds: Positive = Field(10.0, description="give up waiting for a stable rate after this")


class ReportSection(Section):
    """The report."""

    title: str | None = Field(None, description="none: made from the teacher's and the student's names")


class Recipe(Section):
    """One compression, from the teacher to the report."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())

    name: str = Field("custom", pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", description="name of the recipe")
    description: str = Field("", description="command, expected figures, hardware and time")
    seed: int = Field(0, ge=0, description="of weights, data order, augmentation and noise")
    data: DataSection = DataSection()
    teacher: TeacherSection
    student: StudentSection
    method: Method = DskdMethod()
    train: TrainSection = Field(TrainSection(), description="training of the student")
    export: ExportSection = ExportSection()
    # `validate` is a method of pydantic models, so the attribute is named for what it holds.
    validation: ValidateSection = Field(ValidateSection(), alias="validate")
    benchmark: BenchmarkSection = BenchmarkSection()
    report: ReportSection = ReportSection()
