"""The folder of caches: whether another one fits the disk, said with the numbers before anything is computed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dskd_compress.teachers.cache.key import CachedOutput, ImageFacts
from dskd_compress.teachers.cache.rows import MANIFEST, RowStore, locked, open_rows
from dskd_export.errors import EnvironmentProblem

# A cache that took the last byte would leave none for the checkpoints of the training that it is for.
RESERVE_BYTES = 500_000_000


@dataclass(frozen=True)
class Room:
    """What a cache takes, 1 GB = 10^9 bytes.

    Attributes:
        total: bytes of the whole cache.
        new: bytes of it that are not on the disk yet.
        free: bytes of the disk.
    """

    total: int
    new: int
    free: int


def size_text(count: float) -> str:
    """Bytes for a person, 1 GB = 10^9 bytes."""
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.2f} MB"


def output_folder(place: Path, output: CachedOutput) -> Path:
    """Where an output is kept."""
    return place / f"{output.name}-{output.key[:32]}"


def find_room(place: Path, outputs: Sequence[CachedOutput], images: ImageFacts, max_gb: float | None) -> Room:
    """Measure a cache against its disk.

    Args:
        place: folder of caches; need not exist.
        outputs: what is kept of an image.
        images: how many rows there are.
        max_gb: largest cache; None: what the disk has.

    Raises:
        EnvironmentProblem: it does not fit.
    """
    each = sum(output.bytes_per_image for output in outputs)
    missing = [output for output in outputs if not (output_folder(place, output) / MANIFEST).is_file()]
    existing = next(path for path in (place, *place.absolute().parents) if path.is_dir())
    room = Room(
        total=each * images.rows,
        new=sum(output.bytes_per_image for output in missing) * images.rows,
        free=shutil.disk_usage(existing).free,
    )
    needs = f"The teacher cache needs {size_text(room.total)}: {images}, {each / 1e3:,.1f} kB each"
    smaller = (
        "Lower data.augment.views, keep teacher.cache.features in float16, read the vector instead of the map "
        "(method.tap), or set teacher.cache.enabled to false."
    )
    if max_gb is not None and room.total > max_gb * 1e9:
        raise EnvironmentProblem(f"{needs}; teacher.cache.max_gb allows {size_text(max_gb * 1e9)}.", smaller)
    if room.new and room.new + RESERVE_BYTES > room.free:
        raise EnvironmentProblem(
            f"{needs}; {size_text(room.new)} of it are still to be written, {size_text(room.free)} are free "
            f"at {place}, and {size_text(RESERVE_BYTES)} are left for checkpoints.",
            f"Choose a larger disk with teacher.cache.folder. {smaller}",
        )
    return room


def open_outputs(
    place: Path, outputs: Sequence[CachedOutput], images: ImageFacts, max_gb: float | None = None
) -> dict[str, RowStore]:
    """Open the rows of every output, by its name; what is not there yet is made, if it fits.

    Of several processes one makes them and the others wait: what one has taken must not count against another.

    Raises:
        DataError: what is there is damaged.
        EnvironmentProblem: it does not fit the disk, or the place cannot be written to.
    """
    with locked(place):
        find_room(place, outputs, images, max_gb)
        return {
            output.name: open_rows(
                output_folder(place, output), images.rows, output.shape, output.dtype, output.made_of
            )
            for output in outputs
        }
