"""Calls of any size over a runner that takes some sizes only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dskd_export.documents.runner_name import RunnerName
from dskd_export.runtime.batches import AnyBatch, largest_call, split_calls
from dskd_export.runtime.runner import Array, RunnerFacts

RANGES = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 9)).map(lambda pair: (pair[0], sum(pair))), min_size=1, max_size=3
)


class Doubler:
    """Gives twice what it gets, and refuses what is in none of its ranges."""

    name, facts = RunnerName("torch:cpu:fp32"), RunnerFacts("torch", "2", "cpu", "fp32", threads=1)

    def __init__(self, ranges: list[tuple[int, int]]) -> None:
        self.ranges, self.calls, self.open = ranges, list[int](), False

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        count = len(feeds["input"])
        assert any(low <= count <= high for low, high in self.ranges)
        self.calls.append(count)
        return {"logits": 2 * feeds["input"]}

    def __enter__(self) -> Doubler:
        self.open = True
        return self

    def __exit__(self, *_: Any) -> None:
        self.open = False


@given(RANGES, st.integers(1, 40))
def test_every_image_comes_back_in_its_place(ranges: list[tuple[int, int]], count: int) -> None:
    images = np.arange(3.0 * count).reshape(count, 3)
    with AnyBatch(Doubler(ranges), ranges) as runner:
        np.testing.assert_array_equal(runner.infer({"input": images})["logits"], 2 * images)


@given(RANGES, st.integers(1, 40))
def test_only_the_last_call_is_filled_up(ranges: list[tuple[int, int]], count: int) -> None:
    calls = list(split_calls(count, ranges))
    assert [start for start, _, _ in calls] == [sum(size for _, size, _ in calls[:n]) for n in range(len(calls))]
    assert sum(size for _, size, _ in calls) == count
    assert all(size == batch for _, size, batch in calls[:-1])


@pytest.mark.parametrize(
    ("ranges", "count", "calls"),
    [
        ([(1, 1), (2, 8)], 16, [8, 8]),
        ([(1, 1), (2, 8)], 9, [8, 1]),
        ([(4, 4)], 6, [4, 4]),
        ([(1, 1)], 3, [1, 1, 1]),
        ([(8, 16)], 3, [8]),
    ],
)
def test_the_largest_calls_come_first(ranges: list[tuple[int, int]], count: int, calls: list[int]) -> None:
    doubler = Doubler(ranges)
    AnyBatch(doubler, ranges).infer({"input": np.ones((count, 2))})
    assert doubler.calls == calls
    assert largest_call(count, ranges) == calls[0]


def test_it_is_the_runner_but_for_the_batch() -> None:
    doubler = Doubler([(1, 2)])
    with AnyBatch(doubler, [(1, 2)]) as runner:
        assert doubler.open
        assert (runner.name, runner.facts, runner.ranges) == (Doubler.name, Doubler.facts, ((1, 2),))
    assert not doubler.open


@pytest.mark.parametrize("ranges", [[], [(0, 2)], [(3, 2)]])
def test_ranges_that_are_none(ranges: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="no ranges of batches"):
        AnyBatch(Doubler([(1, 1)]), ranges)
