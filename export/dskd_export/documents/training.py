"""Documents of training and of comparing methods."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from dskd_export.documents.base import MAX_RECORD, Accuracy, DataFacts, Document, Interval, Measured, Provenance
from dskd_export.files.json_text import InvalidJson, adapt_json


class ModelFacts(Document):
    """What a model is and costs."""

    name: str = Field(description="timm architecture")
    parameters: int
    macs: int | None = Field(description="multiply-accumulates for one image of input_size")
    size_mb: float = Field(description="weights on disk, 1 MB = 10^6 bytes")
    input_size: tuple[int, int, int] = Field(description="channels, height, width")
    weights: str = Field(description="where the weights come from")
    sha256: str | None = None


class TapFacts(Document):
    """Where DSKD reads the features of a model."""

    kind: Literal["vector", "map"]
    channels: int
    grid: tuple[int, int] | None = Field(default=None, description="height and width of a map tap")
    layout: str = Field(
        description="the model's own layout: NCHW, NHWC, tokens, vector; or prefix: tokens before the grid"
    )


class TeacherCacheFacts(Document):
    """What was kept of the teacher's outputs, and what that saved."""

    keys: dict[str, str] = Field(description="output -> sha256 of all that it depends on")
    features: Literal["float16", "float32"] = Field(description="of taps on disk; logits are float32")
    views: int = Field(description="augmentations kept of an image")
    size_gb: float = Field(description="1 GB = 10^9 bytes")
    images_read: int = Field(description="since the training was last started")
    images_computed: int = Field(description="since the training was last started")
    check_error: float | None = Field(
        description="the first batch read against the same batch computed: largest difference over the largest "
        "value; None where none was read"
    )


class StepRecord(Document):
    """One line of `train.jsonl` for an optimisation step."""

    kind: Literal["step"] = "step"
    step: int = Field(description="1 after the first update")
    epoch: int = Field(description="0-based")
    losses: dict[str, float] = Field(description="'loss' is the total; the other terms are weighted as added")
    grad_norm: float | None
    learning_rate: float
    images_per_s: float
    monitors: dict[str, Measured] = Field(
        default_factory=dict, description="method diagnostics, unitless; null where not finite"
    )


class EpochRecord(Document):
    """One line of `train.jsonl` for an epoch's end."""

    kind: Literal["epoch"] = "epoch"
    epoch: int
    step: int
    train_loss: float
    val_loss: Measured = Field(description="null where not finite")
    top1: float = Field(description="fraction in [0, 1] on the validation set, of the EMA where there is one")
    top5: float | None
    best: bool
    seconds: float


StudentStart = Literal["random", "pretrained", "checkpoint"]
"""What a student starts from; pretrained: timm's weights."""


class TeacherProbeFacts(Document):
    """A linear classifier fitted on a teacher's features, which guides in place of the teacher's head."""

    key: str = Field(description="sha256 of all that it was fitted on")
    images: int
    channels: int
    l2: float
    iterations: int
    converged: bool
    train_accuracy: float = Field(description="fraction in [0, 1] of the images that it was fitted on")


FindingKind = Literal[
    "teacher_mode",
    "teacher_not_frozen",
    "teacher_changed",
    "not_optimized",
    "teacher_input",
    "class_order",
    "dead_term",
    "exploding_term",
    "collapsed_target",
]


class Finding(Document):
    """A fault of a training: what was seen, what it means, what to change."""

    kind: FindingKind
    step: int = Field(description="of the update at which it was seen; 0: before the first")
    term: str | None = Field(default=None, description="loss term, module or monitor that shows it")
    severity: Literal["stop", "warning"]
    seen: str
    means: str
    cure: str


class TeacherFacts(Document):
    """What the teacher makes of the training images of one step."""

    accuracy: float = Field(description="share of the images whose label is the teacher's first class")
    confidence: Measured = Field(
        description="mean probability of the teacher's first class; null where not finite"
    )
    input_mean: Measured = Field(description="of all values that reach the teacher; about 0 for photographs")
    input_std: Measured = Field(description="about 1 for photographs")


class DiagnosisRecord(Document):
    """One line of `train.jsonl` for a diagnosed step."""

    kind: Literal["diagnosis"] = "diagnosis"
    step: int = Field(description="1 for the first update")
    epoch: int
    gradient_norms: dict[str, float | None] = Field(
        description="loss term -> norm of its gradient, as weighted in the loss, on the parameter that "
        "`gradient_at` names; None: it has none"
    )
    gradient_at: dict[str, str] = Field(description="loss term -> parameter, or what its parameters belong to")
    teacher: TeacherFacts | None = Field(description="None: the method has no teacher")
    findings: list[Finding] = Field(default_factory=list)


TrainingRecord = StepRecord | EpochRecord | DiagnosisRecord
TRAINING_RECORD: TypeAdapter[TrainingRecord] = TypeAdapter(Annotated[TrainingRecord, Field(discriminator="kind")])


class TrainingDocument(Document):
    """`teacher.json` and `distill.json`: what a training ended with."""

    role: Literal["teacher", "student"]
    method: str
    method_settings: dict[str, Any]
    model: ModelFacts
    teacher: ModelFacts | None = Field(default=None, description="None where the teacher itself is trained")
    taps: dict[str, TapFacts] = Field(default_factory=dict, description="'teacher' and 'student'")
    discarded: dict[str, int] = Field(
        default_factory=dict, description="training-only module -> parameters discarded at the end"
    )
    epochs: int
    steps: int
    best_epoch: int
    best: Accuracy
    last: Accuracy
    teacher_accuracy: Accuracy | None = None
    start: StudentStart | None = Field(default=None, description="weights of the student before its first step")
    initial_sha256: str | None = Field(default=None, description="of the student before its first step")
    teacher_probe: TeacherProbeFacts | None = Field(default=None, description="None where none was fitted")
    teacher_cache: TeacherCacheFacts | None = Field(default=None, description="None where nothing was kept")
    findings: list[Finding] | None = Field(default=None, description="faults seen; None: not diagnosed")
    images_per_s: float = Field(description="training images per second, validation not counted")
    peak_memory_mb: float | None
    pretrained_exists: bool | None = Field(
        default=None, description="timm has pretrained weights of the student; None: not recorded"
    )
    data: DataFacts
    provenance: Provenance


class ComparedMethod(Document):
    """One method of a comparison, over all seeds; accuracies are fractions in [0, 1]."""

    label: str
    method: str
    settings: dict[str, Any]
    seeds: list[int]
    top1: list[float] = Field(description="one a seed, in the order of `seeds`")
    mean: float
    interval: Interval | None = Field(description="Student's t over seeds; None with a single seed")
    seconds: list[float] = Field(description="training alone, validation not counted")
    images_per_s: list[float]
    peak_memory_mb: list[float | None]


class PairedDifference(Document):
    """`first - second`, seed by seed: same data order, same initial student, same steps."""

    first: str
    second: str
    seeds: list[int]
    differences: list[float]
    mean: float
    interval: Interval | None = Field(description="Student's t over seeds; None with a single seed")


class ComparisonDocument(Document):
    """`compare.json`: several methods under one budget."""

    recipe: str
    teacher: str
    teacher_top1: float | None
    student: str
    epoch: Literal["last", "best"] = Field(description="whose accuracy is compared; best is chosen on the images")
    steps: int
    data: DataFacts
    methods: list[ComparedMethod]
    differences: list[PairedDifference] = Field(description="every pair, once")
    jobs: int = Field(description="trainings that ran side by side; seconds are comparable within one number")
    commits: list[str | None] = Field(description="of the tool, of all runs; none: of an installed release")
    provenance: Provenance


def read_record(line: bytes) -> TrainingRecord:
    """Read one line of `train.jsonl`.

    Raises:
        InvalidJson: it is not a record.
    """
    if len(line) > MAX_RECORD:
        raise InvalidJson(f"the line has more than {MAX_RECORD:,} bytes")
    return adapt_json(line, TRAINING_RECORD)
