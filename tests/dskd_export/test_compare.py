from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from scipy.spatial.distance import cosine as cosine_distance
from scipy.special import softmax
from scipy.stats import entropy

from dskd_export.compare import (
    Limits,
    compare_outputs,
    compare_preprocess,
    compare_runners,
    cosine,
    gate,
    kl_divergence,
)
from dskd_export.documents import Accuracy, Interval, Parity, PreprocessParity
from dskd_export.errors import DataError, ModelError

LIMITS = Limits(
    max_abs_relative=1e-4,
    min_cosine=0.9999,
    max_kl=1e-4,
    min_agreement=1.0,
    max_top1_drop=0.005,
    max_pixel_error=1,
)
CHECKS = ["max abs / scale", "cosine", "KL", "top-1 agreement", "top-1 drop", "pixel difference"]

logit = st.floats(-50, 50, width=32)
pairs = st.tuples(st.integers(1, 6), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(arrays(np.float32, shape, elements=logit), arrays(np.float32, shape, elements=logit))
)


def compare(a: np.ndarray, b: np.ndarray, batch: int = 1) -> Parity:
    return compare_outputs(a, b, reference_name="a", candidate_name="b", batch=batch)


@settings(deadline=None)
@given(pairs)
def test_against_scipy(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = (item.astype(np.float64) for item in pair)
    found = compare(*pair)
    assert found.finite
    assert (found.reference, found.candidate, found.images) == ("a", "b", len(a))
    assert found.max_abs == np.max(np.abs(a - b))
    assert found.output_scale == np.max(np.abs(a))
    if found.output_scale:
        assert found.max_abs_relative == pytest.approx(np.max(np.abs(a - b)) / np.max(np.abs(a)), rel=1e-12)
        assert found.mean_abs_relative == pytest.approx(np.mean(np.abs(a - b)) / np.max(np.abs(a)), rel=1e-12)
    kl = max(entropy(softmax(p), softmax(q)) for p, q in zip(a, b, strict=True))
    assert found.kl_max == pytest.approx(kl, rel=1e-6, abs=1e-12)
    assert found.top1_agreement == np.mean([p.argmax() == q.argmax() for p, q in zip(a, b, strict=True)])
    for p, q, value in zip(a, b, cosine(a, b), strict=True):
        # Below 1e-100 scipy's own squares vanish.
        if np.abs(p).max() > 1e-100 < np.abs(q).max():
            assert value == pytest.approx(1 - cosine_distance(p, q), abs=1e-9)
    assert found.cosine_min == cosine(a, b).min()


@settings(deadline=None)
@given(pairs, st.floats(-50, 50))
def test_kl_does_not_see_a_shift(pair: tuple[np.ndarray, np.ndarray], shift: float) -> None:
    a, b = (item.astype(np.float64) for item in pair)
    np.testing.assert_allclose(kl_divergence(a + shift, b), kl_divergence(a, b), rtol=1e-6, atol=1e-10)
    assert (kl_divergence(a, b) >= 0).all()
    np.testing.assert_array_equal(kl_divergence(a, a), 0)


def test_identical_outputs() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    found = compare(logits, logits.copy(), batch=3)
    assert found.batch == 3
    assert (found.max_abs, found.max_abs_relative, found.mean_abs_relative, found.kl_max) == (0, 0, 0, 0)
    assert found.top1_agreement == 1
    assert found.cosine_min == pytest.approx(1, abs=1e-15)


def test_by_hand() -> None:
    reference = np.array([[4.0, 0.0], [0.0, 3.0]], np.float32)
    candidate = np.array([[4.0, 0.0], [3.0, 0.0]], np.float32)
    found = compare(reference, candidate)
    assert (found.max_abs, found.output_scale, found.max_abs_relative) == (3, 4, 0.75)
    assert found.mean_abs_relative == (6 / 4) / 4
    assert found.cosine_min == 0
    assert found.top1_agreement == 0.5
    # softmax(0, 3) against its mirror image: (p1 - p0) * 3
    assert found.kl_max == pytest.approx(3 * math.tanh(1.5))


def test_extreme_values_stay_finite() -> None:
    reference = np.array([[3e38, -3e38], [1e-38, 0]], np.float32)
    found = compare(reference, -reference)
    assert found.finite
    assert found.max_abs_relative == 2
    assert found.cosine_min == -1
    assert math.isfinite(found.kl_max)


def test_zeros() -> None:
    zeros, ones = np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32)
    same = compare(zeros, zeros)
    assert (same.max_abs_relative, same.cosine_min, same.kl_max) == (0, 1, 0)
    other = compare(zeros, ones)
    assert other.max_abs_relative == math.inf
    assert other.cosine_min == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("in_reference", [True, False])
def test_nan_and_inf(value: float, in_reference: bool) -> None:
    good = np.array([[1.0, 2.0], [3.0, 1.0]], np.float32)
    bad = good.copy()
    bad[1, 0] = value
    found = compare(bad, good) if in_reference else compare(good, bad)
    assert not found.finite
    for field in ("max_abs", "max_abs_relative", "mean_abs_relative", "cosine_min", "kl_max"):
        assert math.isnan(getattr(found, field))
    assert found.top1_agreement == 0.5  # the image with the bad value does not agree
    assert math.isnan(found.output_scale) if in_reference else found.output_scale == 3


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ModelError, match=r"b gives logits of shape \[2, 4\], a \[2, 3\]"):
        compare(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ModelError, match="cannot be compared"):
        compare(np.zeros(3), np.zeros(3))
    with pytest.raises(DataError, match="no logits"):
        compare(np.zeros((0, 3)), np.zeros((0, 3)))


# --- runners


class FakeRunner:
    def __init__(self, name: str, error_in_batches_of: int = 0) -> None:
        self.name = name
        self.facts: dict[str, object] = {}
        self.calls: list[int] = []
        self._wrong = error_in_batches_of

    def infer(self, feeds):
        pixels = feeds["pixels"]
        self.calls.append(len(pixels))
        return {"scores": pixels.mean(axis=(2, 3)) + (1 if len(pixels) == self._wrong else 0)}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_runners_are_called_with_exactly_the_batch() -> None:
    inputs = np.random.default_rng(0).normal(size=(7, 3, 4, 4)).astype(np.float32)
    names = {"input_name": "pixels", "output_name": "scores"}
    a, b = FakeRunner("a"), FakeRunner("b", error_in_batches_of=1)
    found = compare_runners(a, b, inputs, batch=3, **names)
    assert a.calls == b.calls == [3, 3, 1]
    assert (found.reference, found.candidate, found.batch, found.images) == ("a", "b", 3, 7)
    assert found.max_abs == pytest.approx(1, rel=1e-6)  # the partial last batch counts
    assert compare_runners(a, b, inputs[:6], batch=3, **names).max_abs == 0


# --- preprocessing


def test_preprocessing_by_hand() -> None:
    a = np.zeros((2, 3, 3), np.uint8)
    b = a.copy()
    b[0, 0] = [1, 0, 5]  # one pixel, two channels
    b[1, 2, 1] = 2
    c = np.full((2, 3, 3), 255, np.uint8)
    d = c.copy()
    d[0, 0, 0] = 0  # no wrap-around of bytes
    found = compare_preprocess(iter([a, a]), iter([a, b]), (0.5, 0.25, 1.0))
    assert (found.images, found.max_abs_pixel, found.differing_pixels) == (2, 5, 2)
    assert found.max_abs_normalised == pytest.approx(2 / 255 / 0.25)
    assert compare_preprocess([c], [d], (1, 1, 1)).max_abs_pixel == 255
    same = compare_preprocess([c], [c], (1, 1, 1))
    assert (same.max_abs_pixel, same.max_abs_normalised, same.differing_pixels) == (0, 0, 0)


def test_preprocessing_that_does_not_fit() -> None:
    a = np.zeros((2, 3, 3), np.uint8)
    with pytest.raises(DataError, match=r"Image 0 is \[2, 3, 3\].*\[3, 2, 3\]"):
        compare_preprocess([a], [a.transpose(1, 0, 2)], (1, 1, 1))
    with pytest.raises(DataError, match="no images"):
        compare_preprocess([], [], (1, 1, 1))
    with pytest.raises(ValueError, match="argument 2"):
        compare_preprocess([a, a], [a], (1, 1, 1))


# --- the gate


def make_parity(batch: int = 1, **changes: object) -> Parity:
    fields: dict[str, object] = {
        "reference": "torch",
        "candidate": "ort",
        "batch": batch,
        "images": 64,
        "max_abs": 1e-5,
        "output_scale": 1,
        "max_abs_relative": 1e-5,
        "mean_abs_relative": 1e-6,
        "cosine_min": 0.99999,
        "kl_max": 1e-6,
        "top1_agreement": 1.0,
        "finite": True,
    }
    return Parity.model_validate(fields | changes)


def make_accuracy(right: int, images: int) -> Accuracy:
    return Accuracy(top1=Interval(value=right / images, low=0, high=1), images=images)


def judge(parity=None, reference=(190, 200), candidate=(190, 200), pixel=0.0, limits=LIMITS):
    return gate(
        limits,
        parity or [make_parity()],
        {"torch": make_accuracy(*reference), "ort": make_accuracy(*candidate)},
        PreprocessParity(images=5, max_abs_pixel=pixel, max_abs_normalised=0, differing_pixels=0),
        reference="torch",
        candidate="ort",
    )


def failed(checks) -> list[str]:
    return [check.name for check in checks if not check.passed]


def test_one_check_a_limit_and_all_pass() -> None:
    checks = judge()
    assert [check.name for check in checks] == CHECKS
    assert failed(checks) == []
    assert [check.limit for check in checks] == list(LIMITS.model_dump().values())
    assert [check.comparison for check in checks] == ["<=", ">=", "<=", ">=", "<=", "<="]
    assert [check.value for check in checks] == [1e-5, 0.99999, 1e-6, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("name", "field", "at_limit", "over"),
    [
        ("max abs / scale", "max_abs_relative", 1e-4, 1.01e-4),
        ("cosine", "cosine_min", 0.9999, 0.99989),
        ("KL", "kl_max", 1e-4, 1.01e-4),
        ("top-1 agreement", "top1_agreement", 1.0, 0.999),
    ],
)
def test_the_worst_batch_decides(name: str, field: str, at_limit: float, over: float) -> None:
    good = make_parity(1)
    assert failed(judge([good, make_parity(3, **{field: at_limit})])) == []
    for order in ([good, make_parity(8, **{field: over})], [make_parity(8, **{field: over}), good]):
        checks = judge(order)
        assert failed(checks) == [name]
        check = next(check for check in checks if check.name == name)
        assert check.value == over
        assert "batch 8" in check.detail


def test_accuracy_and_pixels() -> None:
    # One of 200 is exactly the limit, although 0.95 - 0.945 is a hair above 0.005 in floating point.
    assert 190 / 200 - 189 / 200 > 0.005
    assert failed(judge(candidate=(189, 200))) == []
    assert failed(judge(candidate=(188, 200))) == ["top-1 drop"]
    better = judge(candidate=(195, 200))
    assert failed(better) == []
    assert better[4].value == -0.025
    assert failed(judge(pixel=1.0)) == []
    assert failed(judge(pixel=2.0)) == ["pixel difference"]


def test_nan_and_inf_fail_all_that_rests_on_logits() -> None:
    broken = compare_outputs(
        np.ones((2, 3)), np.full((2, 3), np.nan), reference_name="torch", candidate_name="ort", batch=3
    )
    checks = judge([make_parity(), broken])
    assert failed(checks) == CHECKS[:5]
    for check in checks[:5]:
        assert check.value is None
        assert check.detail == "NaN or Inf in the logits"


def test_a_reference_of_zeros_fails_with_its_reason() -> None:
    zeros = compare_outputs(
        np.zeros((1, 3)), np.ones((1, 3)), reference_name="torch", candidate_name="ort", batch=1
    )
    check = judge([zeros])[0]
    assert (check.passed, check.value) == (False, None)
    assert "zero everywhere" in check.detail


def test_other_runners_do_not_count() -> None:
    other = make_parity(1, candidate="tensorrt", max_abs_relative=1.0)
    assert failed(judge([make_parity(), other])) == []
    with pytest.raises(ValueError, match="no comparison of ort with torch"):
        judge([other])


def test_accuracies_of_different_images_are_not_compared() -> None:
    with pytest.raises(ValueError, match="200 and 100 images"):
        judge(candidate=(95, 100))


def test_limits_are_checked_and_frozen() -> None:
    with pytest.raises(ValidationError):
        Limits(**(LIMITS.model_dump() | {"min_cosine": 1.1}))
    with pytest.raises(ValidationError):
        Limits(**(LIMITS.model_dump() | {"max_speed": 1}))
    with pytest.raises(ValidationError):
        LIMITS.max_kl = 1.0  # type: ignore[misc]
