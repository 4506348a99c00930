"""Which of several processes this one is, as torchrun says it in the environment. Needs no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """One process among those that train together.

    Attributes:
        rank: 0 to world_size - 1, over all machines.
        world_size: how many they are.
        local_rank: the number on this machine, which is also that of its GPU.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0


def place_of_this_process() -> Place:
    """From what torchrun sets; a process that it did not start is alone.

    Slurm's own variables do not count: a batch script that asks for several tasks is not one of them.
    """
    try:
        return Place(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    except (KeyError, ValueError):
        return Place()


def processes_here() -> int:
    """How many processes of this training share this machine, as torchrun says it; 1 without torchrun."""
    try:
        return max(1, int(os.environ["LOCAL_WORLD_SIZE"]))
    except (KeyError, ValueError):
        return 1
