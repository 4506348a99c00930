"""Check the images: present, labelled, of the same classes, and enough for a batch."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from dskd_compress.config import Recipe
from dskd_compress.data import (
    DataSets,
    StreamSet,
    check_batch_size,
    find_data_faults,
    find_ignored_orientation,
    open_data,
)
from dskd_compress.names import DISTILL, TRAIN
from dskd_compress.preflight.findings import Findings


def inspect_data(recipe: Recipe, found: Findings) -> tuple[DataSets | None, bool]:
    """Open and check the images.

    Returns:
        The images, None where they cannot be opened; and whether they are in order, so that their classes count.
    """
    sets = found.attempt(lambda: open_data(recipe.data, recipe.seed))
    if sets is None:
        return None, False
    faults = list(find_data_faults(sets))
    for fault in faults:
        found.add(fault)
    return sets, not faults


def inspect_batches(recipe: Recipe, stages: Collection[str], sets: DataSets, found: Findings) -> None:
    """Check that the training set fills a batch of each training."""
    if isinstance(sets.train, StreamSet):
        return
    sections = {"train": recipe.train if DISTILL in stages else None}
    sections["teacher.train"] = recipe.teacher.train if TRAIN in stages else None
    images, source = len(sets.train), sets.source
    for name, section in sections.items():
        if section is not None:
            found.attempt(partial(check_batch_size, source, images, section.batch_size, f"{name}.batch_size"))


def inspect_orientation(recipe: Recipe, sets: DataSets, found: Findings) -> None:
    """Check that photos do not lie on their side because their EXIF is ignored; reads at most 200 headers."""
    sentence = find_ignored_orientation(sets, recipe.seed)
    if sentence is not None:
        found.warn(sentence)


def count_images(images: object) -> int | None:
    """Count the images of a set; None: a stream that does not tell."""
    return images.length if isinstance(images, StreamSet) else len(images)  # type: ignore[arg-type]
