"""What a student gets wrong: counts by class, pairs of classes, and examples with a small photo."""

from __future__ import annotations

from pydantic import Field

from dskd_export.documents.base import Document


class ClassCounts(Document):
    """Answers on the images of one class."""

    name: str
    images: int
    student_right: int
    teacher_right: int | None = Field(default=None, description="None: there is no teacher")
    lost: int | None = Field(default=None, description="images that the teacher has right and the student wrong")
    gained: int | None = Field(default=None, description="images that the student has right and the teacher wrong")


class ConfusedPair(Document):
    """Images of one class that the student takes for another."""

    label: str
    answer: str | None = Field(description="None: a logit is not finite, so there is no answer")
    images: int


class Mistake(Document):
    """An image that the student gets wrong, and the teacher right where there is one."""

    name: str = Field(description="of the image, relative to its source")
    label: str
    student: str = Field(description="its answer")
    student_confidence: float = Field(description="probability of that answer")
    teacher: str | None = Field(default=None, description="its answer; None: there is no teacher")
    teacher_confidence: float | None = None
    jpeg: str | None = Field(
        default=None,
        description="base64 of a small JPEG of the image as the student gets it; None: photos are off",
    )


class Mistakes(Document):
    """What the fp32 student gets wrong on the validation images."""

    runner: str = Field(description="that the student was called with")
    classes: list[ClassCounts] = Field(description="in the order of the logits; those without images are left out")
    confused: list[ConfusedPair] = Field(description="the most frequent first")
    left_out: int = Field(default=0, description="pairs that are not listed")
    examples: list[Mistake] = Field(description="the most confident first")
    photos: bool = Field(description="validate.photos: whether the examples hold a photo")
