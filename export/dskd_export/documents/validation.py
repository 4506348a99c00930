"""Documents of validation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dskd_export.documents.base import Accuracy, DataFacts, Document, Interval, Measured, Provenance
from dskd_export.documents.mistakes import Mistakes
from dskd_export.documents.runner_name import RunnerName


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
        description="largest lower bound of the drop; None: no class has enough images to be judged separately"
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
    """One model on one provider, compared with the reference."""

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
    teacher_drop: Interval | None = Field(
        default=None,
        description="top-1 that it loses against the teacher on the same images, for readers: not judged",
    )
    checks: list[Check] = Field(default_factory=list)
    causes: list[str] = Field(default_factory=list, description="likely causes of the failure")


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
    target: str | None = Field(
        default=None, description="what the bundle's models are for, and so the device that is decided for"
    )
    speed_limits: list[str] = Field(
        default_factory=list, description="keys of the budget that only a benchmark can judge"
    )
    reference: str = Field(description="runner that is taken to be right")
    accuracy: dict[str, Accuracy] = Field(description="runner -> accuracy on the validation set, reference first")
    judgements: list[Judgement]
    preprocess: PreprocessParity | None = Field(
        description="None: there is no torch here to compare the device's input with"
    )
    checks: list[Check] = Field(description="of the bundle itself: input, spec, golden images, labels")
    causes: list[str] = Field(default_factory=list, description="likely causes of a failed check")
    passed: bool = Field(description="the verdict is PASS")
    mistakes: Mistakes | None = Field(
        default=None, description="of the fp32 student; None: there are no labels, or a pair was compared"
    )
    training_accuracy: Accuracy | None = Field(
        default=None, description="of the student on training images without augmentation; None: not measured"
    )
    data: DataFacts
    bundle_sha256: str
    provenance: Provenance

    def without_photos(self) -> ValidationDocument:
        """The same without the photos of mistakes, for logs and other places that keep no images."""
        if self.mistakes is None:
            return self
        examples = [one.model_copy(update={"jpeg": None}) for one in self.mistakes.examples]
        return self.model_copy(update={"mistakes": self.mistakes.model_copy(update={"examples": examples})})
