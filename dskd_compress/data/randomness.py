"""Random numbers that depend on what is drawn, not on when or where it is drawn."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray


def mix_seed(*parts: int) -> int:
    """Mix integers into one seed in [0, 2^63), for the order and augmentation of images."""
    return _hash_to_seed(struct.pack(f"<{len(parts)}q", *parts), "little")


def mix_step_seed(*parts: int | None) -> int:
    """Mix integers into one seed in [0, 2^63), for the noise of a training step.

    Differs from `mix_seed` in its encoding only: one for both would change the numbers of every training.
    """
    return _hash_to_seed("/".join(map(str, parts)).encode(), "big")


def _hash_to_seed(content: bytes, order: Literal["little", "big"]) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), order) >> 1


def seed_all(*parts: int) -> None:
    """Seed `random`, `numpy.random` and torch's CPU generator, which timm's transforms draw from.

    torch.manual_seed would seed the GPUs as well, at a hundred times the cost.
    """
    seed = mix_seed(*parts)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)


@contextmanager
def keep_generators() -> Iterator[None]:
    """Give the three generators back in the state they had: training draws from them too."""
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


def draw_epoch_order(length: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of an epoch: a permutation of `length` numbers drawn from (seed, epoch)."""
    return np.random.Generator(np.random.PCG64(mix_seed(seed, epoch))).permutation(length)
