"""The JSON documents of a run folder, typed.

One class for each file (or line of a `.jsonl` file) that a stage writes and a later stage or
the report reads. They are the contract between the packages: `dskd_compress` writes them,
`dskd_export.report` reads them without torch. A value that could not be measured is `None`
with its reason beside it, never 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from dskd_export.bounded import read_bounded
from dskd_export.errors import DataError
from dskd_export.json_text import InvalidJson, adapt_json, validate_json

MAX_DOCUMENT = 16 << 20
MAX_RECORD = 1 << 20
"""Bytes that are read of a document, and of one line of `train.jsonl`."""

# JSON has no NaN: it is written as null, and null is read as NaN again. All other numbers are finite.
Measured = Annotated[
    float,
    Field(allow_inf_nan=True),
    BeforeValidator(lambda value: float("nan") if value is None else value),
]

RunnerName = Annotated[
    str,
    Field(
        pattern="^[a-z]+:[a-z]+:[a-z0-9]+$",
        description="what computes, where and in which precision: `onnxruntime:cpu:int8`",
    ),
]


class Document(BaseModel):
    """Base of all documents: immutable, unknown keys and numbers that are not finite refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="null")


class Interval(Document):
    """A point estimate with its 95 % interval, in the unit of the field that holds it."""

    value: float
    low: float
    high: float


class Accuracy(Document):
    """Accuracy on labelled images; fractions in [0, 1], Wilson score intervals."""

    top1: Interval
    top5: Interval | None = Field(default=None, description="None with fewer than six classes")
    images: int


class DataFacts(Document):
    """Which images were used."""

    source: str
    sha256: str
    sha256_of: Literal["content", "listing"] = Field(
        description="content: every pixel counted; listing: file names and sizes"
    )
    train_images: int | None
    val_images: int | None
    classes: list[str]
    skipped: list[str] = Field(default_factory=list, description="unreadable images, by name")
    left_out: list[str] = Field(
        default_factory=list, description="what the scan found and did not take for an image, counted by reason"
    )


class DeviceFacts(Document):
    """The machine that produced a number."""

    device: str = Field(description="cpu or cuda:0")
    cpu: str
    cores: int = Field(description="cores this process may use")
    memory_gb: float
    gpu: str | None = None
    driver: str | None = None
    platform: str
    governor: str | None = Field(default=None, description="CPU frequency governor where the system tells")
    simd: str | None = Field(default=None, description="widest vectors of the CPU, for example AVX-512 VNNI")
    pinned_cores: list[int] | None = Field(
        default=None, description="cores that this process is held to; None: it may use all of the machine's"
    )


class Provenance(Document):
    """How a number was obtained."""

    command: str
    started_at: str = Field(description="ISO 8601, UTC")
    seconds: float
    seed: int
    commit: str | None = Field(description="git commit of the tool's checkout, with '+dirty' where changed")
    versions: dict[str, str]
    device: DeviceFacts
    recipe_sha256: str

    @property
    def code(self) -> str:
        """What computed it, for readers: the commit, or the release where it was installed."""
        return (
            f"commit {self.commit}" if self.commit else f"dskd-compress {self.versions.get('dskd-compress', '')}"
        )


class StageRecord(Document):
    """`stages/<stage>.json`: what a stage read and wrote, so that a stale result shows as stale."""

    stage: str
    settings_sha256: dict[str, str] = Field(description="recipe section -> sha256 of its canonical JSON")
    inputs: dict[str, str] = Field(description="what was read -> sha256")
    outputs: dict[str, str] = Field(description="file written, relative to the run folder -> sha256")
    provenance: Provenance


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


class TeacherProbeFacts(Document):
    """A linear classifier that was fitted on a teacher's features and guides in place of its own."""

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
    """One line of `train.jsonl` for a step that was looked at closely."""

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
        default_factory=dict, description="training-only module -> parameters thrown away at the end"
    )
    epochs: int
    steps: int
    best_epoch: int
    best: Accuracy
    last: Accuracy
    teacher_accuracy: Accuracy | None = None
    initial_sha256: str | None = Field(default=None, description="of the student before its first step")
    teacher_probe: TeacherProbeFacts | None = Field(default=None, description="None where none was fitted")
    teacher_cache: TeacherCacheFacts | None = Field(default=None, description="None where nothing was kept")
    findings: list[Finding] | None = Field(default=None, description="faults seen; None: nobody looked for them")
    images_per_s: float = Field(description="training images per second, validation not counted")
    peak_memory_mb: float | None
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


class Parity(Document):
    """Outputs of two runners on the same inputs; NaN where `finite` is False and nothing can be measured."""

    reference: str
    candidate: str
    batch: int
    images: int
    max_abs: Measured = Field(description="largest absolute difference of logits")
    output_scale: Measured = Field(description="largest absolute reference logit")
    max_abs_relative: Measured = Field(description="max_abs / output_scale")
    mean_abs_relative: Measured
    cosine_min: Measured = Field(description="smallest cosine over images")
    cosine_mean: Measured
    kl_max: Measured = Field(description="largest KL(reference || candidate) over images, in nats")
    kl_mean: Measured
    top1_agreement: float = Field(description="fraction of images with the same first class")
    top5_agreement: float | None = Field(
        description="fraction of the reference's first five classes that are among the candidate's; "
        "None with fewer than six classes"
    )
    finite: bool


class ClassDrop(Document):
    """What a candidate loses on one class; fractions, Tango score interval of paired shares."""

    name: str
    images: int
    lost: int = Field(description="images that the reference has right and the candidate wrong")
    gained: int = Field(description="images that the candidate has right and the reference wrong")
    drop: Interval


class PairedAccuracy(Document):
    """What a candidate loses against its reference on the same images, each with its own preprocessing."""

    images: int
    lost: int = Field(description="images that the reference has right and the candidate wrong")
    gained: int = Field(description="images that the candidate has right and the reference wrong")
    top1_drop: Interval = Field(description="(lost - gained) / images, Tango score interval of paired shares")
    mcnemar_p: float = Field(description="exact two-sided p-value of: as many gained as lost")
    agreement: Interval = Field(description="fraction of images with the same first class, Wilson score interval")
    worst_class: ClassDrop | None = Field(
        description="largest lower bound of the drop; None: no class has enough images to be judged by itself"
    )
    largest_class_images: int
    reference_calibration_error: Measured = Field(description="expected calibration error, 15 bins, a fraction")
    calibration_error: Measured = Field(description="the candidate's; null where its logits are not finite")


Verdict = Literal["PASS", "NOT SHOWN", "FAIL", "NOT JUDGED"]


class Check(Document):
    """One line of a gate.

    PASS: the end of the interval is within the limit. NOT SHOWN: the value is, the interval is not. FAIL: the
    value itself is beyond the limit.
    """

    name: str
    value: float | None
    bound: float | None = Field(
        default=None, description="end of the value's interval that decides; None: the value"
    )
    limit: float
    comparison: Literal["<=", ">=", ">"]
    verdict: Verdict
    detail: str = ""
    images_needed: int | None = Field(
        default=None,
        description="about how many images would show it; None: it is not NOT SHOWN, or no number of images would",
    )

    @property
    def failed(self) -> bool:
        """Whether the value is beyond its limit."""
        return self.verdict == "FAIL"


class PreprocessParity(Document):
    """The input that the device makes of an image against timm's, on real images."""

    images: int
    max_abs_pixel: float = Field(description="largest difference in units of 1/255 before normalisation")
    max_abs_normalised: float
    differing_pixels: int


class Judgement(Document):
    """One model on one provider, held against the reference."""

    runner: RunnerName
    precision: str
    provider: str = Field(description="cpu, cuda or tensorrt")
    verdict: Literal["PASS", "NOT SHOWN", "FAIL", "NOT RUN"]
    reason: str = Field(default="", description="of the verdict, in one sentence")
    native: bool | None = Field(
        default=None, description="the provider computes in this precision; None: it was not run"
    )
    native_reason: str = Field(default="", description="what it computes in instead, or what was counted")
    computed_in: str | None = Field(
        default=None, description="number type that the provider computed in; None: it was not run"
    )
    size_mb: float | None = Field(default=None, description="of the model file or engine, 1 MB = 10^6 bytes")
    engine_sha256: str | None = Field(default=None, description="of the TensorRT engine; None: it is none")
    parity: list[Parity] = Field(default_factory=list, description="on the same inputs, by batch size")
    accuracy: PairedAccuracy | None = None
    checks: list[Check] = Field(default_factory=list)
    causes: list[str] = Field(default_factory=list, description="what the failure looks like")


class StudentJudgement(Document):
    """The fp32 student itself, against its teacher and against always answering the commonest class."""

    verdict: Verdict
    reason: str = Field(description="of the verdict, in one sentence")
    checks: list[Check]
    teacher: PairedAccuracy | None = Field(
        default=None, description="against the teacher on the same images, each with its own preprocessing"
    )
    teacher_accuracy: Accuracy | None = Field(default=None, description="on the same images")
    commonest_class: str | None = Field(default=None, description="of the images; None: they have no labels")
    commonest_share: float | None = Field(default=None, description="of the images that are of this class")


class ValidationDocument(Document):
    """`validation.json`."""

    verdict: Verdict = Field(
        default="NOT JUDGED", description="the worst of the student, the bundle and every model that was run"
    )
    reason: str = Field(
        default="written by an older version: validate again", description="of the verdict, in one sentence"
    )
    student: StudentJudgement | None = Field(
        default=None, description="None: two named runners are compared, and the student itself is not judged"
    )
    reference: str = Field(description="runner that is taken to be right")
    accuracy: dict[str, Accuracy] = Field(description="runner -> accuracy on the validation set, reference first")
    judgements: list[Judgement]
    preprocess: PreprocessParity | None = Field(
        description="None: there is no torch here whose input the device's could be held against"
    )
    checks: list[Check] = Field(description="of the bundle itself: input, spec, golden images, labels")
    causes: list[str] = Field(default_factory=list, description="what a failure of these looks like")
    passed: bool = Field(description="the verdict is PASS")
    data: DataFacts
    bundle_sha256: str
    provenance: Provenance


DocumentT = TypeVar("DocumentT", bound=Document)


def read_document(path: Path, kind: type[DocumentT]) -> DocumentT:
    """Read one JSON document.

    Raises:
        DataError: the file is missing or is not a document of this kind.
    """
    try:
        return validate_json(read_bounded(path, MAX_DOCUMENT), kind)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file.", "Run the stage that writes it first.") from error
    except InvalidJson as error:
        raise DataError(
            f"{path}: not a valid {kind.__name__}: {error}.", "Delete the file and run the stage again."
        ) from error


def read_record(line: bytes) -> TrainingRecord:
    """Read one line of `train.jsonl`.

    Raises:
        InvalidJson: it is not a record.
    """
    if len(line) > MAX_RECORD:
        raise InvalidJson(f"the line has more than {MAX_RECORD:,} bytes")
    return adapt_json(line, TRAINING_RECORD)
