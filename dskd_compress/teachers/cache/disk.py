"""The folder of caches: its size, checked before anything is computed, and opening it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dskd_compress.config import Recipe
from dskd_compress.run_folder import RunFolder
from dskd_compress.teachers.cache.key import CachedOutput, ImageFacts
from dskd_compress.teachers.cache.rows import MANIFEST, RowStore, lock_folder, open_rows
from dskd_export.errors import EnvironmentProblem

# A cache that took the last byte would leave none for the checkpoints of the training that it is for.
RESERVE_BYTES = 500_000_000


@dataclass(frozen=True)
class DiskUse:
    """Disk space of a cache, in bytes."""

    total: int  # of the whole cache
    new: int  # not on the disk yet
    free: int  # on the disk


def format_bytes(count: float) -> str:
    """Format a number of bytes, 1 GB = 10^9 bytes."""
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.2f} MB"


def locate_cache(recipe: Recipe, folder: RunFolder) -> Path:
    """Locate the folder of caches: the shared one, or that of the run folder."""
    shared = recipe.teacher.cache.folder
    return folder.teacher_cache if shared is None else shared.expanduser()


def locate_output(place: Path, output: CachedOutput) -> Path:
    """Locate the folder of an output."""
    return place / f"{output.name}-{output.key[:32]}"


def check_disk(place: Path, outputs: Sequence[CachedOutput], images: ImageFacts, max_gb: float | None) -> DiskUse:
    """Check that a cache fits its disk.

    Args:
        place: folder of caches; may be missing.
        max_gb: largest cache; None: the free space.

    Raises:
        EnvironmentProblem: it does not fit.
    """
    each = sum(output.bytes_per_image for output in outputs)
    missing = [output for output in outputs if not (locate_output(place, output) / MANIFEST).is_file()]
    existing = next(path for path in (place, *place.absolute().parents) if path.is_dir())
    use = DiskUse(
        total=each * images.rows,
        new=sum(output.bytes_per_image for output in missing) * images.rows,
        free=shutil.disk_usage(existing).free,
    )
    needs = f"The teacher cache needs {format_bytes(use.total)}: {images}, {each / 1e3:,.1f} kB each"
    smaller = (
        "--set teacher.cache.enabled=false, or lower data.augment.views, keep teacher.cache.features at float16, "
        "set method.tap to vector"
    )
    if max_gb is not None and use.total > max_gb * 1e9:
        raise EnvironmentProblem(
            f"{needs}; teacher.cache.max_gb allows {format_bytes(max_gb * 1e9)}.", f"{smaller}."
        )
    if use.new and use.new + RESERVE_BYTES > use.free:
        raise EnvironmentProblem(
            f"{needs}; {format_bytes(use.new)} are not on the disk yet, {format_bytes(use.free)} are free "
            f"at {place}, {format_bytes(RESERVE_BYTES)} are reserved for checkpoints.",
            f"Choose a larger disk with teacher.cache.folder, or: {smaller}.",
        )
    return use


def open_outputs(
    place: Path, outputs: Sequence[CachedOutput], images: ImageFacts, max_gb: float | None = None
) -> dict[str, RowStore]:
    """Open the rows of every output by its name; a missing folder is made, if it fits.

    One process at a time: what it allocates must not count against another.

    Raises:
        DataError: a folder is damaged.
        EnvironmentProblem: the cache does not fit the disk, or the folder is not writable.
    """
    with lock_folder(place):
        check_disk(place, outputs, images, max_gb)
        return {
            output.name: open_rows(
                locate_output(place, output), images.rows, output.shape, output.dtype, output.made_of
            )
            for output in outputs
        }
