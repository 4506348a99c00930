"""Compute distances between logits, and classes by probability. All maths is float64.

Shape suffixes: N images, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def top_classes(logits_BK: NDArray[Any], count: int = 5) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The likeliest classes of each image, and their probabilities.

    Args:
        logits_BK: of any float type.
        count: of classes; all where there are fewer.

    Returns:
        Classes [B, count] and probabilities [B, count] in [0, 1], the likeliest first.
    """
    logits_BK = logits_BK.astype(np.float64)
    shifted_BK = np.exp(logits_BK - logits_BK.max(axis=1, keepdims=True))
    shares_BK = shifted_BK / shifted_BK.sum(axis=1, keepdims=True)
    first_BC = np.argsort(-shares_BK, axis=1, kind="stable")[:, :count]
    return first_BC, np.take_along_axis(shares_BK, first_BC, axis=1)


def cosine(a_NK: NDArray[np.float64], b_NK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine of each pair of rows [N], in [-1, 1]; two zero rows are the same, one alone is not: 1 and 0."""
    # Scaled first, so that squares neither overflow nor vanish.
    units = []
    for rows_NK in (a_NK, b_NK):
        largest_N1 = np.abs(rows_NK).max(axis=1, keepdims=True)
        scaled_NK = rows_NK / np.where(largest_N1 == 0, 1, largest_N1)
        length_N1 = np.linalg.norm(scaled_NK, axis=1, keepdims=True)
        units.append(scaled_NK / np.where(length_N1 == 0, 1, length_N1))
    product_N = np.clip((units[0] * units[1]).sum(axis=1), -1, 1)
    both_zero_N = ~a_NK.any(axis=1) & ~b_NK.any(axis=1)
    return np.where(both_zero_N, 1.0, product_N)


def kl_divergence(a_NK: NDArray[np.float64], b_NK: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(softmax(a) || softmax(b)) of each pair of rows [N], in nats, at least 0."""
    log_p_NK, log_q_NK = _log_softmax(a_NK), _log_softmax(b_NK)
    # Rounding can leave the divergence of equal rows a hair below 0.
    divergence_N: NDArray[np.float64] = (np.exp(log_p_NK) * (log_p_NK - log_q_NK)).sum(axis=1)
    return np.maximum(divergence_N, 0.0)


def _log_softmax(logits_NK: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted_NK = logits_NK - logits_NK.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted_NK - np.log(np.exp(shifted_NK).sum(axis=1, keepdims=True))
    return result
