"""Call a Runner on many images in batches of one size, or with any batch size where it supports some only.

Shape suffixes: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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


Range = tuple[int, int]


class AnyBatch:
    """Split a call into the largest supported batches; the rest is padded with its last image.

    Args:
        runner: closed with this.
        ranges: smallest and largest supported batch, one pair or more.
    """

    def __init__(self, runner: Runner, ranges: Sequence[Range]) -> None:
        if not ranges or any(not 1 <= low <= high for low, high in ranges):
            raise ValueError(f"{ranges} are no ranges of batches")
        self._runner = runner
        self.name, self.facts = runner.name, runner.facts
        self.ranges = tuple(ranges)

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run a batch of any size; the first axis of every array is the batch."""
        count = len(next(iter(feeds.values())))
        parts: list[dict[str, Array]] = []
        for start, size, padded in split_calls(count, self.ranges):
            outputs = self._runner.infer(
                {name: _pad(array[start : start + size], padded) for name, array in feeds.items()}
            )
            parts.append({name: array[:size] for name, array in outputs.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def __enter__(self) -> AnyBatch:
        self._runner.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._runner.__exit__(None, None, None)


def largest_call(count: int, ranges: Sequence[Range]) -> int:
    """Return the largest supported batch within `count`, else the smallest supported one."""
    within = [min(high, count) for low, high in ranges if low <= count]
    return max(within) if within else min(low for low, _ in ranges)


def split_calls(count: int, ranges: Sequence[Range]) -> Iterator[tuple[int, int, int]]:
    """Yield start, images and padded batch of each call for `count` images."""
    start = 0
    while start < count:
        batch = largest_call(count - start, ranges)
        size = min(batch, count - start)
        yield start, size, batch
        start += size


def _pad(array: Array, batch: int) -> Array:
    missing = batch - len(array)
    return array if missing == 0 else np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
