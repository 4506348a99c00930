"""Call a Runner on many images, in batches of one size.

Shape suffixes: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_export.errors import DataError, ModelError
from dskd_export.runtime.runner import Array, Runner
from dskd_export.spec import PROBABILITIES


def logits_of(
    runner: Runner,
    input_NCHW: Array,
    *,
    batch: int,
    input_name: str = "input",
    output_name: str = "logits",
) -> NDArray[Any]:
    """Compute logits [N, K] of all images, in calls of `batch` images; the last call may be smaller.

    The images are in the layout of the model, NCHW or NHWC. For a model that outputs probabilities these are their
    logarithms: logits with the same probabilities, order and divergences.

    Raises:
        DataError: there are no images.
        ModelError: the model has no such output, or its output is not one row an image.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    if not len(input_NCHW):
        raise DataError(
            f"Cannot run {runner.name}: the data set is empty.", "Choose a folder with images: --images FOLDER"
        )
    calls = (input_NCHW[start : start + batch] for start in range(0, len(input_NCHW), batch))
    return np.concatenate([batch_logits(runner, images, input_name, output_name) for images in calls])


def batch_logits(runner: Runner, input_BCHW: Array, input_name: str, output_name: str) -> NDArray[Any]:
    """Compute logits [B, K] of one call and check their shape; of probabilities their logarithms.

    Raises:
        ModelError: the model has no such output, or its output is not one row an image.
    """
    outputs = runner.infer({input_name: input_BCHW})
    if output_name not in outputs:
        raise ModelError(
            f"{runner.name} has no output {output_name}; it has {', '.join(outputs)}.",
            "Run: dskd-compress export RUN",
        )
    logits_BK = outputs[output_name]
    if logits_BK.ndim != 2 or len(logits_BK) != len(input_BCHW):
        raise ModelError(
            f"{runner.name} gives {output_name} of shape {list(logits_BK.shape)} for {len(input_BCHW)} images.",
            "Export a classifier: one row of logits per image.",
        )
    return _log(logits_BK) if output_name == PROBABILITIES else logits_BK


def _log(probabilities_BK: NDArray[Any]) -> NDArray[np.float32]:
    """Take finite logarithms: an underflow counts as the smallest number of float32, 1e-38."""
    floor = np.finfo(np.float32).tiny
    logits_BK: NDArray[np.float32] = np.log(np.maximum(probabilities_BK.astype(np.float64), floor)).astype(
        np.float32
    )
    return logits_BK
