"""The rank of this process, from the environment that torchrun sets. Needs no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class ProcessRank:
    """One of the processes that train together."""

    rank: int = 0  # 0 to world_size - 1, over all machines
    world_size: int = 1  # number of processes
    local_rank: int = 0  # the number on this machine, which is also that of its GPU

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which writes files and prints."""
        return self.rank == 0


def get_process_rank() -> ProcessRank:
    """Read the rank that torchrun sets; a process that it did not start is the only one.

    Slurm's own variables do not count: a batch script that asks for several tasks is not one of them.
    """
    try:
        return ProcessRank(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    except (KeyError, ValueError):
        return ProcessRank()


def count_local_processes() -> int:
    """Count the processes of this training on this machine; 1 without torchrun."""
    try:
        return max(1, int(os.environ["LOCAL_WORLD_SIZE"]))
    except (KeyError, ValueError):
        return 1
