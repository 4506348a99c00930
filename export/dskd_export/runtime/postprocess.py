"""From logits to what a user is shown: classes by probability."""

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
