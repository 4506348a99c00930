"""Holding out a validation set, and training on a part, per class."""

from __future__ import annotations

import hashlib

from dskd_compress.data.image_set import StoredSet, SubsetSet
from dskd_export.errors import DataError


def split_set(whole: StoredSet, fraction: float, split_seed: int) -> tuple[SubsetSet, SubsetSet]:
    """Split one set into training and validation, the same share of every class.

    Every image draws a number from sha256(seed, class, name); in each class the images with the
    smallest numbers are held out. So the split depends on names alone: not on the machine, the
    order of the files or a random generator's version, and a class that is added later moves no
    image of the others.

    Args:
        fraction: share held out, in (0, 1); at least one image of a class, never all of them.

    Returns:
        Training and validation set, both in the order of `whole`.

    Raises:
        DataError: a class has a single image, which cannot be in both.
    """
    members = _members(whole)
    single = [whole.classes[label] for label, indices in sorted(members.items()) if len(indices) == 1]
    if single:
        names = ", ".join(f"'{name}'" for name in single[:5]) + (", ..." if len(single) > 5 else "")
        have = f"Class {names} has" if len(single) == 1 else f"{len(single)} classes ({names}) have"
        raise DataError(
            f"{have} only 1 image, too few to split off a validation set.",
            "Add images, remove the class, or give the source a separate validation folder "
            "(data.val_split names it).",
        )
    held_out: set[int] = set()
    for label, indices in members.items():
        count = min(max(int(len(indices) * fraction + 0.5), 1), len(indices) - 1)
        held_out.update(_rank(whole, label, indices, split_seed)[:count])
    train = [index for index in range(len(whole)) if index not in held_out]
    return SubsetSet(whole, train), SubsetSet(whole, sorted(held_out))


def limit_per_class(whole: StoredSet, count: int, split_seed: int) -> SubsetSet:
    """Keep `count` images of every class, or all of a class that has no more, drawn as `split_set` draws.

    A larger `count` keeps all that a smaller one kept.
    """
    kept = [
        index
        for label, indices in _members(whole).items()
        for index in _rank(whole, label, indices, split_seed)[:count]
    ]
    return SubsetSet(whole, sorted(kept))


def _members(whole: StoredSet) -> dict[int, list[int]]:
    members: dict[int, list[int]] = {}
    for index in range(len(whole)):
        members.setdefault(whole.label(index), []).append(index)
    return members


def _rank(whole: StoredSet, label: int, indices: list[int], split_seed: int) -> list[int]:
    start = f"{split_seed}\0{whole.classes[label]}\0"
    return sorted(indices, key=lambda index: hashlib.sha256(f"{start}{whole.name(index)}".encode()).digest())
