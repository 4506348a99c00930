"""Why an engine cannot be built, written or loaded here: plain facts in, an error with its code out."""

from __future__ import annotations

import shutil
from pathlib import Path

from dskd_export import codes
from dskd_export.errors import EnvironmentProblem


def of_another_version(engine: Path, built: str, here: str, rebuild: str) -> EnvironmentProblem:
    """An engine of another TensorRT.

    Args:
        engine: the file.
        built: what it was built with, for example `tensorrt 10.3.0 on Orin`.
        here: what is installed.
        rebuild: the command that builds it again.
    """
    return EnvironmentProblem(
        f"{engine} was built with {built}; here is {here}.", f"Build it here: {rebuild}", code=codes.ENGINE_VERSION
    )


def of_another_gpu(engine: Path, built: str, here: str, rebuild: str) -> EnvironmentProblem:
    """An engine for another GPU; as `of_another_version`, with the names of both."""
    return EnvironmentProblem(
        f"{engine} was built for {built}; the GPU here is {here}.",
        f"Build it here: {rebuild}",
        code=codes.ENGINE_GPU,
    )


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
