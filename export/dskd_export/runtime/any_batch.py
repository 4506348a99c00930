"""A Runner for any batch size over one that supports some sizes only, for example a TensorRT engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

import numpy as np

from dskd_export.runtime.runner import Array, Runner

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._runner.__exit__(kind, error, traceback)


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
