"""What must hold before the first step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dskd_compress.data.folders import FolderSet
from dskd_compress.data.sources import DataSets, Images
from dskd_compress.data.streams import StreamSet
from dskd_export.errors import DataError
from dskd_export.files.names import describe_difference, find_look_alikes, shell_bytes


def check_data(sets: DataSets, *, every_class: bool = True) -> None:
    """Refuse data on which a training would fail late or learn nonsense.

    Args:
        every_class: a class without images is refused; a model that is ready can be tried without some.

    Raises:
        DataError: no images, fewer than two classes, training and validation with other classes, or a
            class without images. What is wrong is named.
    """
    for fault in find_data_faults(sets, every_class=every_class):
        raise fault


def find_data_faults(sets: DataSets, *, every_class: bool = True) -> Iterator[DataError]:
    """Find all that `check_data` refuses."""
    splits = (("training", sets.train), ("validation", sets.val))
    empty = [split for split, images in splits if not isinstance(images, StreamSet) and len(images) == 0]
    for split in empty:
        yield DataError(
            f"{sets.source}: the {split} set has no images.",
            f"Check data.source, data.train_split and data.val_split.{_left_out(sets)}",
        )
    if not empty:
        yield from _find_other_classes(sets)
    if every_class:
        for split, images in splits:
            if split not in empty:
                yield from _find_empty_classes(sets, split, images)
    if len(sets.classes) < 2:
        yield DataError(
            f"{sets.source}: only one class, '{sets.classes[0]}'.",
            "Is data.source one level too high? It must hold one folder for every class, or train/ and val/.",
        )


def _find_other_classes(sets: DataSets) -> Iterator[DataError]:
    train, val = sets.train.classes, sets.val.classes
    if train == val:
        return
    only_train = [name for name in train if name not in set(val)]
    only_val = [name for name in val if name not in set(train)]
    parts = []
    if only_train:
        parts.append(f"only in training: {_some(only_train)}")
    if only_val:
        parts.append(f"only in validation: {_some(only_val)}")
    if not parts:
        parts.append("the same names in another order")
    alike = find_look_alikes(only_train, only_val)
    if alike:
        parts.append(f"the names look the same: {describe_difference(*alike[0])}")
    yield DataError(
        f"{sets.source}: the classes of training ({len(train)}) and validation ({len(val)}) differ; "
        f"{'; '.join(parts)}.",
        _rename(sets.val, alike[0]) if alike else "Both must have the same class folders.",
    )


def _rename(val: Images, names: tuple[str, str]) -> str:
    """How to give a class of the validation set the name that it has in training."""
    if not isinstance(val, FolderSet):
        return "Give the class the same name in both."
    folder = val.root / val.folder
    return f"Rename the class: mv {shell_bytes(str(folder / names[1]))} {shell_bytes(str(folder / names[0]))}"


def _find_empty_classes(sets: DataSets, split: str, images: Images) -> Iterator[DataError]:
    if isinstance(images, StreamSet):
        return
    filled = {images.label(index) for index in range(len(images))}
    empty = [name for label, name in enumerate(images.classes) if label not in filled]
    if empty:
        yield DataError(
            f"{sets.source}: the {split} set has no images in {'class' if len(empty) == 1 else 'the classes'} "
            f"{_some(empty)}.",
            f"Add images, or remove the class from both sets.{_left_out(sets)}",
        )


def _left_out(sets: DataSets) -> str:
    return f" Left out: {', '.join(sets.left_out)}." if sets.left_out else ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
