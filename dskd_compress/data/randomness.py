"""Random numbers that depend on what is drawn, not on when or where it is drawn."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray


def seed_of(*parts: int) -> int:
    """Mix integers into one seed in [0, 2^63)."""
    digest = hashlib.blake2b(struct.pack(f"<{len(parts)}q", *parts), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_all(*parts: int) -> None:
    """Seed `random`, `numpy.random` and torch's CPU generator, which timm's transforms draw from.

    torch.manual_seed would seed the GPUs as well, at a hundred times the cost.
    """
    seed = seed_of(*parts)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)


@contextmanager
def kept_generators() -> Iterator[None]:
    """Give the three generators back in the state they had: training draws from them too."""
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


def epoch_order(length: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of an epoch: a permutation of `length` numbers drawn from (seed, epoch)."""
    return np.random.Generator(np.random.PCG64(seed_of(seed, epoch))).permutation(length)
