from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dskd_compress.data import BatchShard
from dskd_compress.methods.collectives import all_reduce_mean
from dskd_compress.methods.noise import BLOCK, StepNoise


def draw(rows: list[int], seed: int = 7, shape: tuple[int, ...] = (3, 2)) -> tuple[Tensor, Tensor, Tensor]:
    noise = StepNoise(seed, tuple(rows))
    feat = torch.zeros(len(rows), *shape)
    return noise.randint(1000, like=feat), noise.randn_like(feat), noise.randn_like(feat)


@pytest.mark.parametrize(("size", "count"), [(32, 2), (48, 2), (24, 4), (20, 5)])
def test_an_image_gets_its_noise_wherever_it_is_worked_on(size: int, count: int) -> None:
    whole = draw(list(range(size)))
    for index in range(count):
        rows = BatchShard(index, count).rows(size).tolist()
        for pieces in (1, 2):
            for piece in (rows[: len(rows) // pieces], rows[-(len(rows) // pieces) :]):
                for some, all_of_it in zip(draw(piece), whole, strict=True):
                    assert torch.equal(some, all_of_it[piece])


def test_draws_differ_by_image_by_turn_and_by_step() -> None:
    steps_B, first, second = draw(list(range(64)))
    assert len({tuple(row.tolist()) for row in first.flatten(1)}) == 64
    assert not torch.equal(first, second)
    assert not torch.equal(first, draw(list(range(64)), seed=8)[1])
    assert len(set(steps_B.tolist())) > 50
    assert torch.equal(first, draw(list(range(64)))[1])


def test_they_are_what_they_say() -> None:
    steps_B, noise, _ = draw(list(range(4096)), shape=(8,))
    assert 0 <= int(steps_B.min()) < 5
    assert 995 <= int(steps_B.max()) < 1000
    assert float(steps_B.float().mean()) == pytest.approx(499.5, abs=5 * 1000 / math.sqrt(12 * 4096))
    count = noise.numel()
    assert float(noise.mean()) == pytest.approx(0, abs=5 / math.sqrt(count))
    assert float(noise.var()) == pytest.approx(1, abs=5 * math.sqrt(2 / count))
    # Blocks are drawn for by seeds of their own: they have nothing to do with each other.
    a, b = noise[:BLOCK].flatten(), noise[BLOCK : 2 * BLOCK].flatten()
    assert abs(float(torch.corrcoef(torch.stack((a, b)))[0, 1])) < 5 / math.sqrt(len(a))


def test_several_rows_an_image() -> None:
    """The teacher's and the student's features one below the other."""
    both = StepNoise(1, (0, 1, 5)).randn_like(torch.zeros(6, 4))
    assert not torch.equal(both[:3], both[3:])
    expected = StepNoise(1, tuple(range(8))).randn_like(torch.zeros(16, 4))
    assert torch.equal(both, expected[[0, 1, 5, 8, 9, 13]])


def test_outside_of_a_training_torchs_generator_is_drawn_from() -> None:
    torch.manual_seed(3)
    expected = torch.randn(4, 2), torch.randint(9, (4,))
    torch.manual_seed(3)
    noise = StepNoise()
    assert torch.equal(noise.randn_like(torch.zeros(4, 2)), expected[0])
    assert torch.equal(noise.randint(9, like=torch.zeros(4, 2)), expected[1])


def test_the_mean_of_one_process_is_its_own_and_has_no_gradient() -> None:
    value = torch.tensor(2.0, requires_grad=True)
    mean = all_reduce_mean(value)
    assert float(mean) == 2.0
    assert not mean.requires_grad
