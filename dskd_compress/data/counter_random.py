"""Random numbers for many images at once, each image's from a counter: no state, no order, no device.

The generator is SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014):
the output is a bijective mixing of a counter that rises by an odd constant. Every (seed, view, index)
starts its own counter.

Shape suffixes: B images, D draws.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # the odd number nearest to 2^64 / golden ratio
_MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def draw_uniform(seed: int, keys_B2: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Draw `count` numbers for every image.

    Args:
        keys_B2: int64 [B, 2], (view, index); views may be negative.

    Returns:
        float64 [B, D], uniform in [0, 1), multiples of 2^-53.
    """
    start_B = _mix(np.full(len(keys_B2), seed, np.int64).astype(np.uint64))
    for part_B in keys_B2.T:
        start_B = _mix(start_B + _GAMMA ^ part_B.astype(np.uint64))
    steps_D = np.arange(1, count + 1, dtype=np.uint64) * _GAMMA
    bits_BD = _mix(start_B[:, None] + steps_D) >> np.uint64(11)
    return bits_BD.astype(np.float64) * np.float64(2.0**-53)


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * _MULTIPLIERS[0]
    value = (value ^ (value >> np.uint64(27))) * _MULTIPLIERS[1]
    return value ^ (value >> np.uint64(31))
