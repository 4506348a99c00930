"""A Runner for calls of any size, over one that takes some sizes only, as a TensorRT engine does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from dskd_export.runtime.runner import Array, Runner

Range = tuple[int, int]


class AnyBatch:
    """Splits a call into the largest ones that are taken; what is left is filled up with its last image.

    Args:
        runner: is closed with this.
        ranges: smallest and largest batch, one or more; batches between them are taken.
    """

    def __init__(self, runner: Runner, ranges: Sequence[Range]) -> None:
        if not ranges or any(not 1 <= low <= high for low, high in ranges):
            raise ValueError(f"{ranges} are no ranges of batches")
        self._runner = runner
        self.ranges = tuple(ranges)

    @property
    def name(self) -> str:
        """That of the runner."""
        return self._runner.name

    @property
    def facts(self) -> Mapping[str, Any]:
        """Those of the runner."""
        return self._runner.facts

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run a batch of any size; the first axis of every array is the batch."""
        count = len(next(iter(feeds.values())))
        parts: list[dict[str, Array]] = []
        for start, size, filled in calls_of(count, self.ranges):
            lot = {name: _filled(array[start : start + size], filled) for name, array in feeds.items()}
            outputs = self._runner.infer(lot)
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
    """The largest batch within `count` that is taken; where none is, the smallest that is."""
    within = [min(high, count) for low, high in ranges if low <= count]
    return max(within) if within else min(low for low, _ in ranges)


def calls_of(count: int, ranges: Sequence[Range]) -> Iterator[tuple[int, int, int]]:
    """The calls for `count` images: where each begins, its images, and the batch that they are filled up to."""
    start = 0
    while start < count:
        batch = largest_call(count - start, ranges)
        size = min(batch, count - start)
        yield start, size, batch
        start += size


def _filled(array: Array, batch: int) -> Array:
    missing = batch - len(array)
    return array if missing == 0 else np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
