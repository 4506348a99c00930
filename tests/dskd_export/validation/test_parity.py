from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cosine as cosine_distance
from scipy.special import softmax
from scipy.stats import entropy
from support import compare_runners

from dskd_export.documents.validation import Parity
from dskd_export.errors import DataError, ModelError
from dskd_export.runtime.metrics import cosine, kl_divergence
from dskd_export.validation import parity as module
from dskd_export.validation.parity import compare_inputs, compare_outputs, join_inputs

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
    assert (found.cosine_min, found.cosine_mean) == (cosine(a, b).min(), cosine(a, b).mean())
    kls = [entropy(softmax(p), softmax(q)) for p, q in zip(a, b, strict=True)]
    assert found.kl_mean == pytest.approx(np.mean(kls), rel=1e-6, abs=1e-12)
    fives = [[set(np.argsort(-row, kind="stable")[:5]) for row in rows] for rows in (a, b)]
    if a.shape[1] > 5:
        shares = [len(p & q) / 5 for p, q in zip(*fives, strict=True)]
        assert found.top5_agreement == pytest.approx(np.mean(shares))
    else:
        assert found.top5_agreement is None


def test_the_rows_are_compared_in_lots(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50, 8)).astype(np.float32)
    whole = compare(a, b)
    monkeypatch.setattr(module, "_ROWS", 7)
    for field, value in compare(a, b).model_dump().items():
        expected = getattr(whole, field)
        assert value == (expected if isinstance(expected, str) else pytest.approx(expected, rel=1e-12)), field


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
    measured = (
        "max_abs",
        "max_abs_relative",
        "mean_abs_relative",
        "cosine_min",
        "cosine_mean",
        "kl_max",
        "kl_mean",
    )
    for field in measured:
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


# --- inputs


def test_inputs_by_hand() -> None:
    std = (0.5, 0.25, 1.0)
    step = 1 / 255 / np.array(std, np.float32)[:, None, None]
    a = np.zeros((2, 3, 2, 3), np.float32)
    b = a.copy()
    b[1, 0, 0, 0] = step[0, 0, 0]  # one pixel, two channels
    b[1, 2, 0, 0] = 5 * step[2, 0, 0]
    b[1, 1, 1, 2] = -2 * step[1, 0, 0]
    found = compare_inputs(a, b, std)
    assert (found.images, found.max_abs_pixel, found.differing_pixels) == (2, 5, 2)
    assert found.max_abs_normalised == pytest.approx(max(5 / 255, 2 / 255 / 0.25))
    same = compare_inputs(a, a, std)
    assert (same.max_abs_pixel, same.max_abs_normalised, same.differing_pixels) == (0, 0, 0)


def test_one_step_is_one_step_after_any_normalisation() -> None:
    """Rounding must not make 1.0000002 of a difference of exactly one step."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, size=(4, 3, 8, 8))
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    a, b = (
        ((pixels + more).astype(np.float32) / np.float32(255) - mean[:, None, None]) / std[:, None, None]
        for more in (0, 1)
    )
    assert compare_inputs(a, b, tuple(map(float, std))).max_abs_pixel == 1.0


def test_last_bits_are_no_other_pixel() -> None:
    a = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    b = np.nextafter(a, np.float32(10))
    found = compare_inputs(a, b, (0.2, 0.2, 0.2))
    assert (found.max_abs_pixel, found.differing_pixels) == (0, 0)
    assert 0 < found.max_abs_normalised < 1e-6


def test_joined_comparisons_are_the_comparison_of_all() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(10, 3, 4, 4)).astype(np.float32)
    b = a + rng.choice([0, 0.05], size=a.shape).astype(np.float32)
    std = (0.1, 0.2, 0.3)
    parts = [compare_inputs(a[i : i + 4], b[i : i + 4], std) for i in (0, 4, 8)]
    assert join_inputs(parts) == compare_inputs(a, b, std)


def test_inputs_that_do_not_fit() -> None:
    a = np.zeros((1, 3, 2, 3), np.float32)
    with pytest.raises(DataError, match=r"\[3, 2, 3\].*\[3, 3, 2\]"):
        compare_inputs(a, a.transpose(0, 1, 3, 2), (1, 1, 1))
    with pytest.raises(DataError, match="no images"):
        compare_inputs(a[:0], a[:0], (1, 1, 1))
