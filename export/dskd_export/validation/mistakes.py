"""Find what a student gets wrong: by class, by pair of classes, and the mistakes that it is surest of. Pure.

Shape suffixes: B or N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import base64
import heapq
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dskd_export.documents.mistakes import ClassCounts, ConfusedPair, Mistake, Mistakes
from dskd_export.runtime.preprocess import pixels_from_input
from dskd_export.spec import PROBABILITIES, ModelSpec
from dskd_export.validation.accuracy import is_right

MOST_EXAMPLES = 12
MOST_PAIRS = 400
"""All pairs of 20 classes; of more classes the most frequent ones."""

SIDE = 112
"""Pixels of the longer side of a photo."""

MAX_JPEG = 6 << 10
"""Bytes of a photo, so that all of them are about 100 kB in base64."""

_QUALITIES = (85, 70, 50, 30, 10)
_MAX_NAME = 200  # signs


@dataclass(frozen=True)
class _Found:
    confidence: float
    index: int  # of the image, so that no two compare as equal
    name: str
    label: int
    student: int
    teacher: int | None
    teacher_confidence: float | None
    pixels_HWC: NDArray[np.uint8] | None

    def __lt__(self, other: _Found) -> bool:
        return (self.confidence, -self.index) < (other.confidence, -other.index)


class MistakeSearch:
    """Collects, batch by batch, the student's most confident mistakes where the teacher is right.

    It holds `MOST_EXAMPLES` images at most, whatever the number of images and mistakes.
    """

    def __init__(self, spec: ModelSpec, *, photos: bool) -> None:
        """Start without any image.

        Args:
            spec: of the student, which prepared the inputs.
            photos: keep the pixels as well.
        """
        self._spec = spec
        self.photos = photos
        self._seen = 0
        self._heap: list[_Found] = []

    def observe(
        self,
        inputs_B: NDArray[Any],
        names: Sequence[str],
        labels_B: NDArray[np.int64],
        student_BK: NDArray[Any],
        teacher_BK: NDArray[Any] | None,
    ) -> None:
        """Look at some images; each comes once.

        Args:
            inputs_B: as the device feeds them to the student.
            names: of the images; missing ones are numbered.
            labels_B: indices of classes.
            student_BK: the student's output.
            teacher_BK: the teacher's logits; None: there is no teacher, and every mistake counts.
        """
        found_B = ~is_right(student_BK, labels_B) & np.isfinite(student_BK).all(axis=1)
        sure_B = _confidence(student_BK, self._spec.output_name == PROBABILITIES)
        of_teacher_B = None
        if teacher_BK is not None:
            found_B &= is_right(teacher_BK, labels_B)
            of_teacher_B = _confidence(teacher_BK, False)
        for index in map(int, np.flatnonzero(found_B)):
            confidence = float(sure_B[index])
            if len(self._heap) == MOST_EXAMPLES and confidence <= self._heap[0].confidence:
                continue
            one = _Found(
                confidence=confidence,
                index=self._seen + index,
                name=names[index] if index < len(names) else f"image {self._seen + index}",
                label=int(labels_B[index]),
                student=int(student_BK[index].argmax()),
                teacher=None if teacher_BK is None else int(teacher_BK[index].argmax()),
                teacher_confidence=None if of_teacher_B is None else float(of_teacher_B[index]),
                pixels_HWC=pixels_from_input(inputs_B[index], self._spec) if self.photos else None,
            )
            (heapq.heappush if len(self._heap) < MOST_EXAMPLES else heapq.heapreplace)(self._heap, one)
        self._seen += len(labels_B)

    def examples(self, classes: Sequence[str]) -> list[Mistake]:
        """List the mistakes found, the most confident first."""
        return [
            Mistake(
                name=one.name[-_MAX_NAME:],
                label=classes[one.label],
                student=classes[one.student],
                student_confidence=one.confidence,
                teacher=None if one.teacher is None else classes[one.teacher],
                teacher_confidence=one.teacher_confidence,
                jpeg=None if one.pixels_HWC is None else encode_photo(one.pixels_HWC),
            )
            for one in sorted(self._heap, reverse=True)
        ]


def find_mistakes(
    search: MistakeSearch,
    runner: str,
    student_NK: NDArray[Any],
    teacher_NK: NDArray[Any] | None,
    labels_N: NDArray[np.integer[Any]],
    classes: Sequence[str],
) -> Mistakes:
    """Sum up what a student gets wrong.

    Args:
        search: that saw the same images.
        runner: that the student was called with.
        student_NK: the student's output.
        teacher_NK: the teacher's; None: there is none.
        labels_N: indices of classes.
        classes: K names.
    """
    confused = list_confused(student_NK, labels_N, classes)
    return Mistakes(
        runner=runner,
        classes=count_classes(student_NK, teacher_NK, labels_N, classes),
        confused=confused[:MOST_PAIRS],
        left_out=max(0, len(confused) - MOST_PAIRS),
        examples=search.examples(classes),
        photos=search.photos,
    )


def count_classes(
    student_NK: NDArray[Any],
    teacher_NK: NDArray[Any] | None,
    labels_N: NDArray[np.integer[Any]],
    classes: Sequence[str],
) -> list[ClassCounts]:
    """Count right answers class by class; a class without images is left out."""
    student_N = is_right(student_NK, labels_N)
    teacher_N = None if teacher_NK is None else is_right(teacher_NK, labels_N)

    def count(which_N: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(labels_N[which_N], minlength=len(classes))

    images_K, right_K = count(np.ones(len(labels_N), np.bool_)), count(student_N)
    of_teacher = None if teacher_N is None else (count(teacher_N), count(teacher_N & ~student_N))
    counts = []
    for index in map(int, np.flatnonzero(images_K)):
        more = {}
        if of_teacher is not None:
            right, lost = (int(one_K[index]) for one_K in of_teacher)
            more = {"teacher_right": right, "lost": lost, "gained": int(right_K[index]) - right + lost}
        counts.append(
            ClassCounts(
                name=classes[index], images=int(images_K[index]), student_right=int(right_K[index]), **more
            )
        )
    return counts


def list_confused(
    student_NK: NDArray[Any], labels_N: NDArray[np.integer[Any]], classes: Sequence[str]
) -> list[ConfusedPair]:
    """Count the images of one class that are taken for another, the most frequent pair first."""
    answer_N = np.where(np.isfinite(student_NK).all(axis=1), student_NK.argmax(axis=1), -1)
    wrong_N = answer_N != labels_N
    pairs, images = np.unique(np.stack([labels_N[wrong_N], answer_N[wrong_N]]), axis=1, return_counts=True)
    order = np.lexsort((pairs[1], pairs[0], -images))
    return [
        ConfusedPair(
            label=classes[pairs[0, index]],
            answer=None if pairs[1, index] < 0 else classes[pairs[1, index]],
            images=int(images[index]),
        )
        for index in order
    ]


def encode_photo(pixels_HWC: NDArray[np.uint8]) -> str | None:
    """Encode pixels as a small JPEG in base64, without any metadata; None where no quality is small enough."""
    image = Image.fromarray(pixels_HWC)
    image.thumbnail((SIDE, SIDE))
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= MAX_JPEG:
            return base64.b64encode(buffer.getvalue()).decode()
    return None


def _confidence(output_BK: NDArray[Any], probabilities: bool) -> NDArray[np.float64]:
    """The probability of the first class [B]; NaN where a value is not finite."""
    if probabilities:
        largest_B: NDArray[np.float64] = output_BK.max(axis=1).astype(np.float64)
        return largest_B
    with np.errstate(invalid="ignore"):
        odds_BK = np.exp(output_BK.astype(np.float64) - output_BK.max(axis=1, keepdims=True))
        confidence_B: NDArray[np.float64] = 1 / odds_BK.sum(axis=1)
    return confidence_B
