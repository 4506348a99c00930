"""Random numbers of a step that do not depend on how the batch is divided.

A method draws from `StepNoise` and never from torch's generator. An image then gets the same noise whether its
batch is processed whole, in micro-batches, or by several processes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from dskd_compress.data.randomness import mix_step_seed
from dskd_compress.methods.collectives import not_compiled

# Images that share a seed. A process draws for whole blocks and keeps its own rows of them, so it never has to
# draw for the whole batch.
BLOCK = 16


class StepNoise:
    """Noise for the images at hand: the same for the same step and the same row of the batch.

    Args:
        seed: of the step, the same in all processes; None draws from torch's own generator.
        rows: rows of the whole batch that the images at hand are, in their order.
    """

    def __init__(self, seed: int | None = None, rows: tuple[int, ...] = ()) -> None:
        self._seed, self._rows, self._calls = seed, rows, 0

    @not_compiled
    def randn_like(self, feat: Tensor) -> Tensor:
        """Draw from N(0, 1), like `feat`, whose rows are the images, once or several times."""
        if self._seed is None:
            return torch.randn_like(feat)
        out = torch.empty_like(feat, memory_format=torch.contiguous_format)
        return self._fill(out, lambda block, generator: block.normal_(generator=generator))

    @not_compiled
    def randint(self, high: int, like: Tensor) -> Tensor:
        """Draw an integer from 0 to `high` - 1 for each row of `like`: int64, on its device."""
        out = torch.empty(like.shape[0], dtype=torch.int64, device=like.device)
        if self._seed is None:
            return out.random_(high)
        return self._fill(out, lambda block, generator: block.random_(high, generator=generator))

    def _fill(self, out: Tensor, draw: Callable[[Tensor, torch.Generator], Tensor]) -> Tensor:
        count = len(self._rows)
        assert out.shape[0] % count == 0, "rows that are no images of this step"
        blocks, chosen = _find_rows(self._rows, out.device)
        generator = torch.Generator(out.device)
        drawn = out.new_empty(len(blocks) * BLOCK, *out.shape[1:])
        for first in range(0, out.shape[0], count):
            for number, block in enumerate(blocks):
                generator.manual_seed(mix_step_seed(self._seed, self._calls, block))
                draw(drawn[number * BLOCK : (number + 1) * BLOCK], generator)
            out[first : first + count] = drawn[:count] if chosen is None else drawn[chosen]
            self._calls += 1
        return out


@functools.lru_cache(maxsize=64)  # a step has the same micro-batches as the one before
def _find_rows(rows: tuple[int, ...], device: torch.device) -> tuple[list[int], Tensor | None]:
    """Find the blocks that hold some rows, and the rows' places in them; None: the first ones."""
    blocks = sorted({row // BLOCK for row in rows})
    number = {block: index for index, block in enumerate(blocks)}
    chosen = [number[row // BLOCK] * BLOCK + row % BLOCK for row in rows]
    return blocks, None if chosen == list(range(len(rows))) else torch.tensor(chosen, device=device)
