from __future__ import annotations

import numpy as np
import pytest

from dskd_export.errors import DataError, ModelError
from dskd_export.runtime.batches import logits_of


class FakeRunner:
    """Pixel sums as logits; remembers the size of every call."""

    name = "fake"

    def __init__(self, outputs=None) -> None:
        self.calls: list[int] = []
        self.outputs = outputs or (lambda images: {"logits": images.sum(axis=(2, 3))})

    def infer(self, feeds):
        self.calls.append(len(feeds["input"]))
        return self.outputs(feeds["input"])


@pytest.mark.parametrize(
    ("images", "batch", "calls"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 8, [2]), (3, 1, [1, 1, 1])]
)
def test_calls_have_exactly_the_batch_and_the_rest(images: int, batch: int, calls: list[int]) -> None:
    input_NCHW = np.random.default_rng(0).normal(size=(images, 3, 2, 2)).astype(np.float32)
    runner = FakeRunner()
    logits_NK = logits_of(runner, input_NCHW, batch=batch)
    assert runner.calls == calls
    np.testing.assert_array_equal(logits_NK, input_NCHW.sum(axis=(2, 3)))


def test_what_cannot_be_called() -> None:
    input_NCHW = np.zeros((2, 3, 2, 2), np.float32)
    with pytest.raises(DataError) as caught:
        logits_of(FakeRunner(), input_NCHW[:0], batch=1)
    assert "--images" in caught.value.hint
    with pytest.raises(ValueError, match="at least 1"):
        logits_of(FakeRunner(), input_NCHW, batch=0)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda x: {"features": x}, "no output logits; it has features"),
        (lambda x: {"logits": x}, r"shape \[2, 3, 2, 2\] for 2 images"),
        (lambda x: {"logits": x[:1, :, 0, 0]}, r"shape \[1, 3\] for 2 images"),
    ],
)
def test_what_is_no_classifier(output, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        logits_of(FakeRunner(output), np.zeros((2, 3, 2, 2), np.float32), batch=2)


def test_probabilities_become_logits_of_the_same_order_and_divergence() -> None:
    logits_BK = np.array([[3.0, 0.0, -200.0], [0.5, 0.25, 0.0]], np.float32)
    shares_BK = np.exp(logits_BK) / np.exp(logits_BK).sum(axis=1, keepdims=True)
    runner = FakeRunner(lambda x: {"probabilities": shares_BK})
    found_BK = logits_of(runner, np.zeros((2, 3, 2, 2), np.float32), batch=2, output_name="probabilities")
    assert found_BK.dtype == np.float32
    expected_BK = logits_BK - np.log(np.exp(logits_BK).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found_BK[:, :2], expected_BK[:, :2], rtol=1e-6)
    np.testing.assert_allclose(found_BK[1], expected_BK[1], rtol=1e-6)
    assert found_BK[0, 2] == pytest.approx(np.log(np.finfo(np.float32).tiny))  # underflowed, and still a number
    broken = FakeRunner(lambda x: {"probabilities": np.full((2, 3), np.nan, np.float32)})
    assert np.isnan(
        logits_of(broken, np.zeros((2, 3, 2, 2), np.float32), batch=2, output_name="probabilities")
    ).all()
