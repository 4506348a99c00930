"""Room for an engine, on the disk and on the GPU: plain facts in, an error with its code out."""

from __future__ import annotations

import shutil
from pathlib import Path

from dskd_export import codes
from dskd_export.errors import EnvironmentProblem


def refuse_full_disk(folder: Path, needed_mb: float) -> None:
    """Look for room before minutes of building.

    Args:
        folder: of the engine; it or one above it is there.
        needed_mb: what the engine may take, 1 MB = 10^6 bytes.

    Raises:
        EnvironmentProblem: there is less.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free_mb = shutil.disk_usage(there).free / 1e6
    if free_mb < needed_mb:
        raise EnvironmentProblem(
            f"The engine needs {needed_mb:.0f} MB, and {free_mb:.0f} MB are free in {there}.",
            code=codes.ENGINE_DISK,
        )


def gpu_memory_used_up(what: str, said: str) -> EnvironmentProblem:
    """A call that ended for want of the GPU's memory.

    Args:
        what: needs it, for example `model.fp16.onnx`.
        said: the library's own words.
    """
    return EnvironmentProblem(f"The GPU's memory is used up by {what}: {said}", code=codes.GPU_MEMORY)
