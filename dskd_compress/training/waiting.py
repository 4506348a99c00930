"""The time that a training waits for its images."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class WaitClock:
    """Sums up the time that a loop waits for its items."""

    def __init__(self) -> None:
        self._waited_s = 0.0

    def watch(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, and count the time until each of them comes."""
        source = iter(items)
        while True:
            asked_s = time.perf_counter()
            try:
                item = next(source)
            except StopIteration:
                return
            finally:
                self._waited_s += time.perf_counter() - asked_s
            yield item

    def take_share(self, seconds: float) -> float:
        """Return the share of `seconds`, in [0, 1], that was waited since the last call."""
        waited_s, self._waited_s = self._waited_s, 0.0
        return min(1.0, waited_s / seconds) if seconds > 0 else 0.0
