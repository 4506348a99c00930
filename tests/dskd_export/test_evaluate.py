from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import top_k_accuracy_score

from dskd_export.errors import DataError, ModelError
from dskd_export.evaluate import accuracy_of, evaluate_runner, logits_of, wilson_interval
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner


@settings(deadline=None)
@given(st.integers(1, 50_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(counts: tuple[int, int]) -> None:
    successes, n = counts
    found = wilson_interval(successes, n)
    expected = binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert found.value == successes / n
    assert found.low == pytest.approx(expected.low, abs=1e-12)
    assert found.high == pytest.approx(expected.high, abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_wilson_at_the_ends() -> None:
    assert wilson_interval(0, 10).low == 0
    assert wilson_interval(10, 10).high == 1
    with pytest.raises(DataError, match="no images"):
        wilson_interval(0, 0)
    for successes in (-1, 11):
        with pytest.raises(ValueError, match="no share"):
            wilson_interval(successes, 10)


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
    with pytest.raises(DataError, match="no images"):
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
        with pytest.raises(DataError, match="no images"):
            evaluate_runner(runner, [])
        with pytest.raises(ModelError, match="no output scores; it has logits"):
            evaluate_runner(runner, [(input_NCHW, labels_N)], output_name="scores")
