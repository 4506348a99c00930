"""Counts by class, confused pairs and examples against plain loops over the same answers."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dskd_export.runtime.preprocess import preprocess
from dskd_export.spec import ModelSpec
from dskd_export.validation.mistakes import (
    MAX_JPEG,
    MOST_EXAMPLES,
    MOST_PAIRS,
    MistakeSearch,
    count_classes,
    encode_photo,
    find_mistakes,
    list_confused,
)

CLASSES = ("cat", "dog", "fox")


def make_spec(**changes: object) -> ModelSpec:
    fields = {
        "architecture": "resnet18",
        "height": 16,
        "width": 16,
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.3, 0.25),
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "classes": CLASSES,
        "opset": 20,
        "student_sha256": "0" * 64,
    }
    return ModelSpec.model_validate({**fields, **changes})


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    student = rng.normal(size=(60, 3)) + 1.5 * np.eye(3)[labels]
    teacher = rng.normal(size=(60, 3)) + 3 * np.eye(3)[labels]
    return student, teacher, labels


def test_counts_are_those_of_a_loop(answers: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    student, teacher, labels = answers
    counts = count_classes(student, teacher, labels, CLASSES)
    assert [one.name for one in counts] == list(CLASSES)
    for index, one in enumerate(counts):
        rows = [n for n in range(60) if labels[n] == index]
        s = [student[n].argmax() == index for n in rows]
        t = [teacher[n].argmax() == index for n in rows]
        assert (one.images, one.student_right, one.teacher_right) == (len(rows), sum(s), sum(t))
        assert one.lost == sum(b and not a for a, b in zip(s, t, strict=True))
        assert one.gained == sum(a and not b for a, b in zip(s, t, strict=True))
        assert one.student_right - (one.teacher_right or 0) == (one.gained or 0) - (one.lost or 0)
    pairs = list_confused(student, labels, CLASSES)
    assert sum(pair.images for pair in pairs) == 60 - sum(one.student_right for one in counts)
    assert [pair.images for pair in pairs] == sorted((pair.images for pair in pairs), reverse=True)


def test_a_class_without_images_is_left_out_and_no_answer_is_wrong() -> None:
    logits = np.array([[0.0, 1.0, 0.0], [np.nan, 0.0, 1.0]])
    labels = np.array([1, 0])
    counts = count_classes(logits, None, labels, CLASSES)
    assert [(one.name, one.student_right, one.teacher_right) for one in counts] == [
        ("cat", 0, None),
        ("dog", 1, None),
    ]
    assert [(one.label, one.answer) for one in list_confused(logits, labels, CLASSES)] == [("cat", None)]
    search = MistakeSearch(make_spec(), photos=False)
    search.observe(np.zeros((2, 3, 16, 16), np.float32), (), labels, logits, None)
    assert search.examples(CLASSES) == []


@pytest.mark.parametrize("with_teacher", [True, False])
def test_examples_are_the_most_confident_in_any_batches(
    answers: tuple[np.ndarray, np.ndarray, np.ndarray], with_teacher: bool
) -> None:
    student, teacher, labels = answers
    inputs = np.zeros((60, 3, 16, 16), np.float32)
    names = [f"{n}.jpg" for n in range(60)]

    def search_in(size: int) -> list[tuple[str, float]]:
        search = MistakeSearch(make_spec(), photos=False)
        for start in range(0, 60, size):
            part = slice(start, start + size)
            of_teacher = teacher[part] if with_teacher else None
            search.observe(inputs[part], names[part], labels[part], student[part], of_teacher)
        found = search.examples(CLASSES)
        assert all(one.jpeg is None and (one.teacher is not None) == with_teacher for one in found)
        return [(one.name, one.student_confidence) for one in found]

    odds = np.exp(student)
    sure = odds.max(axis=1) / odds.sum(axis=1)
    wrong = [
        n
        for n in range(60)
        if student[n].argmax() != labels[n] and (not with_teacher or teacher[n].argmax() == labels[n])
    ]
    wrong.sort(key=lambda n: -sure[n])
    assert len(wrong) > MOST_EXAMPLES or with_teacher
    assert [name for name, _ in search_in(60)] == [f"{n}.jpg" for n in wrong[:MOST_EXAMPLES]]
    assert search_in(7) == search_in(60)
    assert search_in(60)[0][1] == pytest.approx(sure[wrong[0]])


def test_probabilities_are_confidences_as_they_are() -> None:
    search = MistakeSearch(make_spec(output_name="probabilities"), photos=False)
    output = np.array([[0.7, 0.2, 0.1]])
    search.observe(np.zeros((1, 3, 16, 16), np.float32), ("a",), np.array([1]), output, None)
    assert search.examples(CLASSES)[0].student_confidence == 0.7


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_photo_is_what_the_student_gets(dtype: str) -> None:
    spec = make_spec(input_dtype=dtype)
    pixels = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    inputs = np.stack([preprocess(Image.fromarray(pixels), spec)])
    search = MistakeSearch(spec, photos=True)
    logits = np.array([[5.0, 0.0, 0.0]])
    search.observe(inputs, ("x" * 500 + "/a.jpg",), np.array([1]), logits, np.array([[0.0, 1.0, 0.0]]))
    found = find_mistakes(search, "torch:cpu:fp32", logits, None, np.array([1]), CLASSES)
    (one,) = found.examples
    assert found.photos
    assert (one.label, one.student, one.teacher) == ("dog", "cat", "dog")
    assert one.name.endswith("/a.jpg")
    assert len(one.name) <= 200
    assert one.jpeg is not None
    with Image.open(io.BytesIO(base64.b64decode(one.jpeg, validate=True))) as image:
        assert (image.format, image.size) == ("JPEG", (16, 16))
        assert np.abs(np.asarray(image).astype(int) - pixels).max() < 12


def test_photos_are_bounded() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 300, 3), dtype=np.uint8)
    encoded = encode_photo(noise)
    assert encoded is not None
    data = base64.b64decode(encoded)
    assert len(data) <= MAX_JPEG
    with Image.open(io.BytesIO(data)) as image:
        assert max(image.size) == 112
        assert not image.getexif()


def test_the_document_is_bounded_for_a_thousand_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spec = make_spec(classes=tuple(f"n{index:08}" for index in range(1000)))
    labels, logits = rng.integers(0, 1000, 4000), rng.normal(size=(4000, 1000))
    search = MistakeSearch(spec, photos=True)
    inputs = rng.integers(0, 256, (4000, 3, 16, 16), dtype=np.uint8)
    uint8 = make_spec(classes=spec.classes, input_dtype="uint8")
    search = MistakeSearch(uint8, photos=True)
    search.observe(inputs, (), labels, logits, None)
    found = find_mistakes(search, "torch:cpu:fp32", logits, None, labels, spec.classes)
    assert len(found.confused) == MOST_PAIRS
    assert found.left_out > 0
    assert len(found.examples) == MOST_EXAMPLES
    assert len(found.model_dump_json(indent=2)) < 500_000
