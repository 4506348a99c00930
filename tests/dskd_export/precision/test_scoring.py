from __future__ import annotations

import numpy as np
import onnx
import pytest

from dskd_export.errors import ModelError
from dskd_export.precision.calibration import Calibration
from dskd_export.precision.scoring import logits_of_model, reference_logits, score_model, score_of


def test_scores_are_those_of_an_independent_calculation():
    from scipy.special import rel_entr, softmax

    rng = np.random.default_rng(0)
    reference, candidate = rng.normal(size=(50, 7)), rng.normal(size=(50, 7))
    labels = rng.integers(0, 7, 50)
    score = score_of(reference, candidate, labels)
    kl = rel_entr(softmax(reference, axis=1), softmax(candidate, axis=1)).sum(axis=1).mean()
    assert np.isclose(score.kl, kl)
    assert score.agreement == np.mean(reference.argmax(1) == candidate.argmax(1))
    assert np.isclose(
        score.top1_drop, np.mean(reference.argmax(1) == labels) - np.mean(candidate.argmax(1) == labels)
    )


def test_nan_is_infinitely_far_and_wrong(cnn, calibration):
    reference = logits_of_model(cnn, calibration.input_N)
    broken = reference.copy()
    broken[0, 3] = np.nan
    score = score_of(reference, broken, calibration.labels_N)
    assert score.kl == np.inf
    assert np.isclose(score.top1_drop, 1 / 64)


def test_a_reference_with_nan_is_refused(make_cnn, calibration):
    images = Calibration(calibration.input_N * 1e30, calibration.labels_N, calibration.image_sha256, 0)
    with pytest.raises(ModelError, match="NaN or Inf"):
        reference_logits(make_cnn(overflow=1e30), images)


def test_bf16_is_scored_without_a_kernel_for_it(cnn, calibration, half):
    score = score_model(onnx.load_from_string(half("bf16").model), reference_logits(cnn, calibration), calibration)
    assert 0 < score.kl < 1e-2
    assert score.agreement > 0.9


def test_probabilities_score_as_their_logits(cnn, calibration):
    other = onnx.ModelProto()
    other.CopyFrom(cnn)
    other.graph.node.append(onnx.helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=1))
    other.graph.output[0].name = "probabilities"
    score = score_of(
        logits_of_model(cnn, calibration.input_N),
        logits_of_model(other, calibration.input_N),
        calibration.labels_N,
    )
    assert score.kl < 1e-9
