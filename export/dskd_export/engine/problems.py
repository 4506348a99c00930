"""Refuse a full disk or a full GPU, with the code of the problem."""

from __future__ import annotations

import shutil
from pathlib import Path

from dskd_export import codes
from dskd_export.errors import EnvironmentProblem


def refuse_full_disk(folder: Path, needed_mb: float) -> None:
    """Check the free space before minutes of building.

    Args:
        folder: of the engine; it or a parent exists.
        needed_mb: expected size of the engine, 1 MB = 10^6 bytes.

    Raises:
        EnvironmentProblem: there is less.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free_mb = shutil.disk_usage(existing).free / 1e6
    if free_mb < needed_mb:
        raise EnvironmentProblem(
            f"The engine needs {needed_mb:.0f} MB; {existing} has {free_mb:.0f} MB free.",
            code=codes.ENGINE_DISK,
        )


def gpu_out_of_memory(what: str, message: str) -> EnvironmentProblem:
    """Make the error of a call that ran out of GPU memory.

    Args:
        what: the model, for example `model.fp16.onnx`.
        message: of the library.
    """
    return EnvironmentProblem(f"{what} ran out of GPU memory: {message}", code=codes.GPU_MEMORY)
