from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from dskd_compress.training.waiting import WaitClock


def slow_items() -> Iterator[int]:
    for number in range(4):
        time.sleep(0.03)
        yield number


def test_only_the_time_between_the_items_counts() -> None:
    clock, began = WaitClock(), time.perf_counter()
    items = []
    for item in clock.watch(slow_items()):
        items.append(item)
        time.sleep(0.03)
    share = clock.take_share(time.perf_counter() - began)
    assert items == [0, 1, 2, 3]
    assert share == pytest.approx(0.5, abs=0.15)
    assert clock.take_share(1.0) == 0.0


def test_a_share_is_a_share() -> None:
    clock = WaitClock()
    list(clock.watch(slow_items()))
    assert clock.take_share(1e-6) == 1.0
    assert clock.take_share(0.0) == 0.0


def test_an_error_of_the_loader_comes_through() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(WaitClock().watch(broken()))
