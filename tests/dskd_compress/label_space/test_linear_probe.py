from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dskd_compress.label_space import fit_linear_probe


def _features(classes: int, channels: int = 6, images: int = 200) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels_N = np.arange(images) % classes
    feat_NC = (
        generator.normal(size=(images, channels)) + 0.7 * generator.normal(size=(classes, channels))[labels_N]
    )
    feat_NC = feat_NC * np.logspace(-3, 2, channels) + 5  # channels of any size
    feat_NC[:, 2] = 1.5  # one that never moves
    return feat_NC.astype(np.float32), labels_N.astype(np.int64)


@pytest.mark.parametrize("classes", [2, 4])
def test_no_gradient_is_left_at_the_solution(classes: int) -> None:
    """The stated loss, by autograd and in the standardised space that the penalty lives in."""
    feat_NC, labels_N = _features(classes)
    l2 = 1e-2
    fitted = fit_linear_probe(feat_NC, labels_N, classes, l2=l2, max_iterations=2000)
    assert fitted.converged
    feat = torch.from_numpy(feat_NC).double()
    std_C = feat.std(dim=0, correction=0)
    moving = std_C > 1e-9
    standard_NC = ((feat - feat.mean(dim=0)) / std_C)[:, moving]
    weight_KC = (fitted.classifier.weight.detach().double() * std_C)[:, moving].requires_grad_()
    bias_K = fitted.classifier.bias.detach().double() + fitted.classifier.weight.detach().double() @ feat.mean(
        dim=0
    )
    bias_K = bias_K.requires_grad_()
    # scikit-learn penalises the one row that it keeps of two classes: twice the norm of our two halves.
    penalty = l2 / 2 * weight_KC.square().sum() * (2 if classes == 2 else 1)
    loss = F.cross_entropy(standard_NC @ weight_KC.T + bias_K, torch.from_numpy(labels_N)) + penalty
    loss.backward()
    assert weight_KC.grad is not None
    assert bias_K.grad is not None
    assert float(weight_KC.grad.abs().max()) < 2e-3
    assert float(bias_K.grad.abs().max()) < 2e-3


def test_it_reads_raw_features_and_is_the_same_every_time() -> None:
    feat_NC, labels_N = _features(4)
    first, again = (fit_linear_probe(feat_NC, labels_N, 4, l2=1e-3, max_iterations=500) for _ in range(2))
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    with torch.no_grad():
        right = first.classifier(torch.from_numpy(feat_NC)).argmax(dim=1).numpy() == labels_N
    assert right.mean() == pytest.approx(first.accuracy, abs=0.011)
    assert first.accuracy > 0.5


def test_too_few_iterations_are_told() -> None:
    feat_NC, labels_N = _features(4)
    fitted = fit_linear_probe(feat_NC, labels_N, 4, l2=1e-6, max_iterations=2)
    assert (fitted.iterations, fitted.converged) == (2, False)
