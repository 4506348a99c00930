from __future__ import annotations

import numpy as np
import pytest

from dskd_export.validation.causes import explain_fields, explain_inputs, explain_labels, explain_logits

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MEAN_C11, STD_C11 = (np.array(value)[:, None, None] for value in (MEAN, STD))


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(3, 3, 8, 8)) / 255


def normalised(pixels: np.ndarray) -> np.ndarray:
    return ((pixels - MEAN_C11) / STD_C11).astype(np.float32)


MISTAKES = {
    "order BGR": lambda p: normalised(p[:, ::-1]),
    "mean and std in each other's place": lambda p: (p - STD_C11) / MEAN_C11,
    "mean and std of BGR": lambda p: (p - MEAN_C11[::-1]) / STD_C11[::-1],
    r"its pixels lie in \[0, 1\]": lambda p: p,
    r"its pixels lie in \[0, 255\]": lambda p: 255 * p,
    r"scaled to \[-1, 1\]": lambda p: 2 * p - 1,
    "upside down": lambda p: normalised(p[:, :, ::-1]),
    "mirrored": lambda p: normalised(p[..., ::-1]),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_of_the_input_is_named(words: str, pixels: np.ndarray) -> None:
    import re

    noise = np.random.default_rng(1).uniform(-0.9, 0.9, pixels.shape) / 255  # another resize, half a step off
    found = explain_inputs(normalised(pixels), MISTAKES[words](pixels + noise).astype(np.float32), MEAN, STD)
    assert found is not None
    assert re.search(words, found)


def test_what_is_no_known_mistake_is_not_named(pixels: np.ndarray) -> None:
    other = np.random.default_rng(2).random(pixels.shape)
    assert explain_inputs(normalised(pixels), normalised(other), MEAN, STD) is None
    assert explain_inputs(normalised(pixels), np.full_like(normalised(pixels), np.nan), MEAN, STD) is None


@pytest.fixture
def logits() -> np.ndarray:
    return (5 * np.random.default_rng(0).normal(size=(40, 12))).astype(np.float32)


def test_mistakes_of_the_logits_are_named(logits: np.ndarray) -> None:
    assert explain_logits(logits, logits) is None
    broken = logits.copy()
    broken[3, 4] = np.inf
    assert "1 of 40 images give NaN or Inf" in str(explain_logits(logits, broken))
    assert "same for every image" in str(explain_logits(logits, np.tile(logits[:1], (40, 1))))
    odds = np.exp(logits)
    assert "probabilities" in str(explain_logits(logits, odds / odds.sum(axis=1, keepdims=True)))
    noise = np.random.default_rng(1).normal(size=logits.shape) * 0.01
    assert "class k here is" not in str(explain_logits(logits, logits + noise))
    for shift in (1, -1):
        found = str(explain_logits(logits, np.roll(logits, shift, axis=1) + noise))
        assert f"shifted by one: what is class k in the reference is class k{shift:+d} here" in found
    assert "10 times the reference's" in str(explain_logits(logits, 10 * logits))


def test_other_logits_have_no_known_cause(logits: np.ndarray) -> None:
    other = (5 * np.random.default_rng(9).normal(size=logits.shape)).astype(np.float32)
    assert explain_logits(logits, other) is None
    assert explain_logits(logits[:, :2], other[:, :2]) is None
    assert explain_logits(np.zeros((3, 4)), np.zeros((3, 4))) is None


def test_shifted_labels_are_seen(logits: np.ndarray) -> None:
    right = logits.argmax(axis=1)
    assert explain_labels(logits, right) is None
    for shift in (1, -1):
        found = str(explain_labels(logits, (right - shift) % 12))
        assert "labels are shifted by one" in found
        assert f"on 40 with {shift:+d} added" in found


def test_a_poor_model_is_no_shift_of_labels(logits: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    assert not any(explain_labels(logits, rng.integers(0, 12, 40)) for _ in range(200))
    assert explain_labels(logits[:, :2], np.zeros(40, int)) is None


SPEC = {"mean": MEAN, "std": STD, "crop_pct": 0.875, "interpolation": "bicubic", "classes": ("ant", "bee", "cow")}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"mean": STD, "std": MEAN}, ["mean and std are in each other's place: mean (0.229, 0.224, 0.225)"]),
        ({"mean": MEAN[::-1]}, ["mean (0.406, 0.456, 0.485) is in the order BGR"]),
        (
            {"std": (0.5, 0.5, 0.5)},
            ["std is (0.5, 0.5, 0.5), the weights were trained with (0.229, 0.224, 0.225)"],
        ),
        ({"crop_pct": 0.9, "interpolation": "bilinear"}, ["crop_pct is 0.9", "interpolation is bilinear"]),
        ({"classes": ("cow", "ant", "bee")}, ["shifted by +1: logit 0 is called 'cow', it is 'ant'"]),
        ({"classes": ("bee", "cow", "ant")}, ["shifted by -1: logit 0 is called 'bee', it is 'ant'"]),
        ({"classes": ("ant", "cow", "bee")}, ["logit 1 is called 'cow', it is 'bee'"]),
        ({"classes": ("ant", "bee")}, ["there are 2, the weights were trained with 3"]),
    ],
)
def test_fields_that_differ_are_named(changes: dict[str, object], expected: list[str]) -> None:
    found = list(explain_fields({**SPEC, **changes}, SPEC))
    assert len(found) == len(expected)
    for text, words in zip(found, expected, strict=True):
        assert words in text
