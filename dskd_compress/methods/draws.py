"""Random numbers of a step, and means over a batch, where several processes or pieces share the batch.

A method draws with `self.draws` and never from torch's generator: then an image gets the same noise whether
its batch is worked on whole, in pieces one after the other, or by many processes.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

Function = TypeVar("Function", bound=Callable[..., Any])


def not_compiled(function: Function) -> Function:
    """Leave a function out of `train.compile`: it runs as it is written."""
    result: Function = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return result


# Images that are drawn for together. A process draws for whole blocks and keeps its own rows of them, and
# so it never has to draw for the whole batch.
BLOCK = 16


class Draws:
    """Draws for the images at hand: the same for the same step and the same place in the batch.

    Before the first `begin`, outside of a training, it draws from torch's own generator.
    """

    def __init__(self) -> None:
        self._seed: int | None = None
        self._rows: tuple[int, ...] = ()
        self._drawn = 0

    def begin(self, seed: int, rows: Sequence[int]) -> None:
        """Start a step, or a piece of one.

        Args:
            seed: of the step, the same in all processes.
            rows: places in the whole batch of the images at hand, in their order.
        """
        self._seed, self._rows, self._drawn = seed, tuple(rows), 0

    @not_compiled
    def randn_like(self, feat: Tensor) -> Tensor:
        """Standard normal, of shape, type and device of `feat`; its rows are the images, or them several times."""
        if self._seed is None:
            return torch.randn_like(feat)
        out = torch.empty_like(feat, memory_format=torch.contiguous_format)
        return self._fill(out, lambda block, generator: block.normal_(generator=generator))

    @not_compiled
    def randint(self, high: int, like: Tensor) -> Tensor:
        """Integers from 0 to `high` - 1 for each row of `like`: int64, on its device."""
        out = torch.empty(like.shape[0], dtype=torch.int64, device=like.device)
        if self._seed is None:
            return out.random_(high)
        return self._fill(out, lambda block, generator: block.random_(high, generator=generator))

    def _fill(self, out: Tensor, draw: Callable[[Tensor, torch.Generator], Tensor]) -> Tensor:
        count = len(self._rows)
        assert out.shape[0] % count == 0, "rows that are no images of this step"
        blocks, chosen = _places(self._rows, out.device)
        generator = torch.Generator(out.device)
        drawn = out.new_empty(len(blocks) * BLOCK, *out.shape[1:])
        for first in range(0, out.shape[0], count):
            for number, block in enumerate(blocks):
                generator.manual_seed(_seed_of(self._seed, self._drawn, block))
                draw(drawn[number * BLOCK : (number + 1) * BLOCK], generator)
            out[first : first + count] = drawn[:count] if chosen is None else drawn[chosen]
            self._drawn += 1
        return out


@functools.lru_cache(maxsize=64)  # a step has the same pieces as the one before
def _places(rows: tuple[int, ...], device: torch.device) -> tuple[list[int], Tensor | None]:
    """The blocks that some rows lie in, and their places in these, one below the other; None: the first ones."""
    blocks = sorted({row // BLOCK for row in rows})
    number = {block: index for index, block in enumerate(blocks)}
    chosen = [number[row // BLOCK] * BLOCK + row % BLOCK for row in rows]
    return blocks, None if chosen == list(range(len(rows))) else torch.tensor(chosen, device=device)


def _seed_of(*parts: int | None) -> int:
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@not_compiled
def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a value over all processes of a training, without a gradient: of the whole batch then.

    For what is not itself a mean of losses, for example a scale that is taken from the batch.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return value.detach()
    from timm.utils import reduce_tensor

    mean: Tensor = reduce_tensor(value.detach(), distributed.get_world_size())
    return mean


@not_compiled
def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of a value over all processes of a training, with its gradient: a sum over the whole batch then.

    For a loss that is not a mean over images, for example a correlation over the batch. Every process then
    has the loss of the whole batch, and the mean of the processes' gradients is that of this loss.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return total


class _Sum(torch.autograd.Function):
    """Every process gets the sum, and so every process's gradient reaches every summand."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total
