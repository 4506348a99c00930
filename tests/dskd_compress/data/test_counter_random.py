from __future__ import annotations

import numpy as np
from scipy import stats

from dskd_compress.data.counter_random import draw_uniform

MASK = (1 << 64) - 1


def mixed(value: int) -> int:
    """SplitMix64's output function, in Python's integers."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def test_splitmix64_published_sequence() -> None:
    """The first outputs of the reference implementation from the state 1234567."""
    gamma = 0x9E3779B97F4A7C15
    outputs = [mixed((1234567 + step * gamma) & MASK) for step in (1, 2, 3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_draws_are_a_counter_of_each_key() -> None:
    keys = np.array([[0, 0], [3, 17], [-1, 5], [2**40, 2**50]])
    draws = draw_uniform(42, keys, 5)
    for (view, index), row in zip(keys.tolist(), draws, strict=True):
        state = mixed(42)
        for part in (view, index):
            state = mixed(((state + 0x9E3779B97F4A7C15) & MASK) ^ (part & MASK))
        expected = [mixed((state + step * 0x9E3779B97F4A7C15) & MASK) >> 11 for step in range(1, 6)]
        assert (row * 2.0**53).astype(np.int64).tolist() == expected


def test_uniform_and_independent() -> None:
    keys = np.stack(np.meshgrid(np.arange(20), np.arange(1000)), axis=-1).reshape(-1, 2)
    draws = draw_uniform(0, keys, 4)
    assert draws.min() >= 0
    assert draws.max() < 1
    for column in draws.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    # Neighbours in every direction: draw, view, index, seed.
    grid = draws.reshape(1000, 20, 4)
    other = draw_uniform(1, keys, 4).reshape(1000, 20, 4)
    for one, two in (
        (grid[..., 0], grid[..., 1]),
        (grid[:, 1:, 0], grid[:, :-1, 0]),
        (grid[1:, :, 0], grid[:-1, :, 0]),
        (grid[..., 0], other[..., 0]),
    ):
        assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 4 / np.sqrt(one.size)
    assert len(np.unique(np.concatenate([draws.ravel(), other.ravel()]))) == 2 * draws.size
