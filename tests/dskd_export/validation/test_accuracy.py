from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis_support import examples
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import top_k_accuracy_score

from dskd_export.errors import DataError, ModelError
from dskd_export.runtime.batches import logits_of
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner
from dskd_export.validation.accuracy import (
    MIN_CLASS_IMAGES,
    accuracy_of,
    calibration_error,
    compare_accuracy,
    evaluate_runner,
    find_worst_class,
)
from dskd_export.validation.intervals import paired_interval, wilson_interval


@settings(deadline=None)
@given(images=st.integers(1, 40), classes=st.integers(3, 12), seed=st.integers(0, 999))
def test_accuracy_is_sklearns(images: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(images, classes)).astype(np.float32)
    labels = rng.integers(0, classes, images)
    found = accuracy_of(logits, labels)
    assert found.images == images
    ranks = np.arange(classes)
    assert found.top1.value == pytest.approx(top_k_accuracy_score(labels, logits, k=1, labels=ranks))
    if classes > 5:
        assert found.top5 is not None
        assert found.top5.value == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=ranks))
    else:
        assert found.top5 is None


@given(st.integers(0, 999))
def test_ties_are_argmaxs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.integers(0, 3, (20, 8)).astype(np.float32)
    labels = rng.integers(0, 8, 20)
    found = accuracy_of(logits, labels)
    assert found.top1.value == np.mean(logits.argmax(axis=1) == labels)
    first_five = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    assert found.top5 is not None
    assert found.top5.value == np.mean((first_five == labels[:, None]).any(axis=1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_are_wrong(value: float) -> None:
    logits = np.tile(np.arange(8.0), (4, 1)).astype(np.float32)
    labels = np.full(4, 7)
    logits[0, 7] = value  # argmax would call NaN and Inf right here
    logits[1, 0] = value  # and this too
    found = accuracy_of(logits, labels)
    assert found.top5 is not None
    assert (found.top1.value, found.top5.value) == (0.5, 0.5)


def test_what_cannot_be_counted() -> None:
    logits = np.zeros((2, 3))
    with pytest.raises(DataError, match="Label 3 is not one of the model's 3 classes"):
        accuracy_of(logits, np.array([0, 3]))
    with pytest.raises(DataError, match="Label -1"):
        accuracy_of(logits, np.array([-1, 0]))
    with pytest.raises(DataError, match="data set is empty"):
        accuracy_of(logits[:0], np.array([], dtype=np.int64))
    with pytest.raises(ValueError, match="do not fit together"):
        accuracy_of(logits, np.array([0]))


def test_a_runner_in_one_pass_and_in_two(onnx_bytes: bytes, head) -> None:
    weight, bias = head
    rng = np.random.default_rng(0)
    input_NCHW = rng.normal(size=(23, 3, 6, 8)).astype(np.float32)
    labels_N = rng.integers(0, 7, 23)
    predicted_N = (input_NCHW.mean(axis=(2, 3)) @ weight + bias).argmax(axis=1)
    seen: list[int] = []
    with OnnxRuntimeRunner(onnx_bytes, threads=1) as runner:
        batches = ((input_NCHW[start : start + 5], labels_N[start : start + 5]) for start in range(0, 23, 5))
        found = evaluate_runner(runner, batches, on_batch=seen.append)
        assert seen == [5, 5, 5, 5, 3]
        assert found.top1.value == np.mean(predicted_N == labels_N)
        assert accuracy_of(logits_of(runner, input_NCHW, batch=4), labels_N) == found
        with pytest.raises(DataError, match="data set is empty"):
            evaluate_runner(runner, [])
        with pytest.raises(ModelError, match="no output scores; it has logits"):
            evaluate_runner(runner, [(input_NCHW, labels_N)], output_name="scores")


# --- calibration


def naive_calibration_error(logits: np.ndarray, labels: np.ndarray) -> float:
    """Bin by bin, image by image, with scipy's softmax."""
    confidence, right = softmax(logits.astype(np.float64), axis=1).max(axis=1), logits.argmax(axis=1) == labels
    total = 0.0
    for number in range(15):
        chosen = [i for i in range(len(labels)) if number / 15 < confidence[i] <= (number + 1) / 15]
        if chosen:
            total += len(chosen) / len(labels) * abs(np.mean(right[chosen]) - np.mean(confidence[chosen]))
    return total


@settings(deadline=None)
@given(images=st.integers(1, 60), classes=st.integers(2, 9), seed=st.integers(0, 999), scale=st.floats(0.1, 8))
def test_calibration_error_bin_by_bin(images: int, classes: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits = (scale * rng.normal(size=(images, classes))).astype(np.float32)
    labels = rng.integers(0, classes, images)
    assert calibration_error(logits, labels) == pytest.approx(naive_calibration_error(logits, labels), abs=1e-6)


def test_calibration_error_by_hand() -> None:
    sure = np.array([[50.0, 0.0], [50.0, 0.0]], np.float32)
    assert calibration_error(sure, np.array([0, 0])) == pytest.approx(0)
    assert calibration_error(sure, np.array([0, 1])) == pytest.approx(0.5)
    assert calibration_error(sure, np.array([1, 1])) == pytest.approx(1)
    assert np.isnan(calibration_error(np.full((2, 2), np.inf, np.float32), np.array([0, 0])))


def test_sharper_logits_are_worse_calibrated() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5000, 5)) * 2
    labels = np.array([rng.choice(5, p=row) for row in softmax(logits, axis=1)])
    good, sharp = calibration_error(logits, labels), calibration_error(10 * logits, labels)
    assert good < 0.03 < 0.2 < sharp


# --- a candidate and its reference


def random_pair(seed: int, images: int = 120, classes: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    reference = (
        rng.normal(size=(images, classes)).astype(np.float32) + 2 * np.eye(classes, dtype=np.float32)[labels]
    )
    candidate = reference + rng.normal(size=reference.shape).astype(np.float32)
    return reference, candidate, labels


@settings(deadline=None, max_examples=examples(30))
@given(st.integers(0, 999))
def test_pairs_are_counted(seed: int) -> None:
    reference, candidate, labels = random_pair(seed)
    found = compare_accuracy(reference, candidate, labels)
    right, still_right = reference.argmax(1) == labels, candidate.argmax(1) == labels
    lost = sum(a and not b for a, b in zip(right, still_right, strict=True))
    gained = sum(b and not a for a, b in zip(right, still_right, strict=True))
    assert (found.images, found.lost, found.gained) == (len(labels), lost, gained)
    assert found.top1_drop == paired_interval(lost, gained, len(labels))
    before, after = accuracy_of(reference, labels).top1.value, accuracy_of(candidate, labels).top1.value
    assert found.top1_drop.value == pytest.approx(before - after)
    assert found.mcnemar_p == pytest.approx(binomtest(lost, lost + gained, 0.5).pvalue)
    assert found.agreement == wilson_interval(int((reference.argmax(1) == candidate.argmax(1)).sum()), len(labels))
    assert found.reference_calibration_error == calibration_error(reference, labels)
    assert found.calibration_error == calibration_error(candidate, labels)


def test_the_same_outputs_lose_nothing() -> None:
    reference, _, labels = random_pair(0)
    found = compare_accuracy(reference, reference, labels, tuple("abcdefg"))
    assert (found.lost, found.gained, found.mcnemar_p, found.agreement.value) == (0, 0, 1.0, 1.0)
    assert found.worst_class is not None
    assert found.worst_class.name in "abcdefg"
    assert found.worst_class.drop.value == 0


def test_nan_loses_and_does_not_agree() -> None:
    reference, _, labels = random_pair(1)
    reference[np.arange(len(labels)), labels] += 100  # always right
    candidate = reference.copy()
    candidate[:30, 0] = np.nan
    found = compare_accuracy(reference, candidate, labels)
    assert (found.lost, found.gained, found.agreement.value) == (30, 0, 0.75)
    assert np.isnan(found.calibration_error)


def test_a_class_that_is_shown_to_have_lost_is_worse_than_a_small_one() -> None:
    """2 of 10 lost could be chance, 20 of 100 is none."""
    labels = np.repeat([0, 1, 2], [100, 10, 9])
    lost = np.zeros(119, bool)
    lost[:20] = lost[100:103] = lost[110:] = True  # a fifth, three tenths, and all of a class that is too small
    found = find_worst_class(lost, np.zeros(119, bool), labels, ("many", "few", "too few"))
    assert found is not None
    assert (found.name, found.images, found.lost, found.gained) == ("many", 100, 20, 0)
    assert found.drop == paired_interval(20, 0, 100)


def test_one_image_of_a_class_does_not_decide() -> None:
    labels = np.repeat([0, 1], [200, MIN_CLASS_IMAGES])
    lost = np.zeros(len(labels), bool)
    lost[-1] = True
    found = find_worst_class(lost, np.zeros(len(labels), bool), labels)
    assert found is not None
    assert found.name == "1"
    assert found.drop.value == 1 / MIN_CLASS_IMAGES
    assert found.drop.low < 0.02


def test_no_class_is_large_enough() -> None:
    nothing = np.zeros(18, bool)
    assert find_worst_class(nothing, nothing, np.repeat([0, 1], 9)) is None


def test_logits_of_other_images() -> None:
    with pytest.raises(ValueError, match="not of the same images"):
        compare_accuracy(np.zeros((3, 2)), np.zeros((4, 2)), np.zeros(3, int))
