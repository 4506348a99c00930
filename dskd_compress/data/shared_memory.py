"""Room for the batches that worker processes hand over: they wait in shared memory until they are used."""

from __future__ import annotations

import math
import os
from pathlib import Path

from dskd_compress.launch import count_local_processes
from dskd_compress.shortages import SHARED_MEMORY
from dskd_export.errors import EnvironmentProblem

PREFETCHED_BATCHES = 4  # a worker


def estimate_batches_size(
    images: int | None, batch_size: int, input_size: tuple[int, int, int], workers: int
) -> int:
    """Compute the most bytes that batches of uint8 images take in shared memory at one time.

    Args:
        images: of the whole set, which may be less than what is prefetched; None: not known.
    """
    if workers == 0:
        return 0
    # Those that are prefetched, and the one that the training works on.
    count = batch_size * (workers * PREFETCHED_BATCHES + 1)
    return math.prod(input_size) * (count if images is None else min(count, images))


def check_shared_memory(needed: int, place: Path = Path(SHARED_MEMORY)) -> None:
    """Refuse batches that do not fit: a worker without room for its batch would never send it.

    Args:
        needed: bytes, by one process that trains.
        place: where shared memory lies; a system that has no such folder is not checked.

    Raises:
        EnvironmentProblem: there is less.
    """
    needed *= count_local_processes()
    if needed == 0 or not place.is_dir():
        return
    found = os.statvfs(place)
    free = found.f_bavail * found.f_frsize
    if free < needed:
        gigabytes = max(1, math.ceil(2 * needed / 2**30))
        raise EnvironmentProblem(
            f"Shared memory ({place}) has {_megabytes(free)} free; the batches that worker processes "
            f"prefetch take {_megabytes(needed)}.",
            f"Give a container more: docker run --shm-size={gigabytes}g. Or decode in the training "
            "process: --set data.workers=0",
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 10_000_000 else f"{size / 1e6:.1f} MB"
