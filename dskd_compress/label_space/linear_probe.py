"""Fit a linear classifier on the features of a frozen model.

Shape suffixes: N images, C channels, K classes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dskd_export.errors import require


@dataclass(frozen=True)
class FittedProbe:
    """A fitted classifier of raw features."""

    classifier: nn.Linear
    iterations: int
    converged: bool  # whether the solver converged within its iterations
    accuracy: float  # on the training features


def fit_linear_probe(
    feat_NC: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    classes: int,
    *,
    l2: float,
    max_iterations: int,
) -> FittedProbe:
    """Fit a multinomial logistic regression on standardised features; no random number is drawn.

        min_{W,b}  1/N sum_n -log softmax(W (f_n - m) / s + b)_{y_n}  +  l2 / 2 ||W||^2

    solved by scikit-learn's L-BFGS; m and s, the mean and deviation of each channel, are then folded into
    W and b, so that the classifier reads raw features.

    Args:
        labels_N: class indices; no class is missing.
        l2: weight of the penalty, above 0.
    """
    require("sklearn", "train")
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    feat = feat_NC.astype(np.float64)
    mean_C, std_C = feat.mean(axis=0), feat.std(axis=0)
    std_C = np.where(std_C > 0, std_C, 1.0)  # a constant channel
    standard_NC = (feat - mean_C) / std_C
    solver = LogisticRegression(C=1 / (l2 * len(labels_N)), max_iter=max_iterations, tol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # reported by `converged`
        solver.fit(standard_NC, labels_N)
    weight_KC, bias_K = solver.coef_, solver.intercept_
    if classes == 2:  # one row, of the second class against the first
        weight_KC, bias_K = np.concatenate((-weight_KC, weight_KC)) / 2, np.concatenate((-bias_K, bias_K)) / 2
    weight_KC = weight_KC / std_C
    bias_K = bias_K - weight_KC @ mean_C
    classifier = nn.Linear(feat.shape[1], classes, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        classifier.weight.copy_(torch.from_numpy(weight_KC))
        classifier.bias.copy_(torch.from_numpy(bias_K))
    iterations = int(np.max(solver.n_iter_))
    accuracy = float((np.argmax(feat @ weight_KC.T + bias_K, axis=1) == labels_N).mean())
    return FittedProbe(classifier, iterations, iterations < max_iterations, accuracy)
