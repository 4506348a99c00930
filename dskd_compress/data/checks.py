"""What must hold before the first step."""

from __future__ import annotations

from collections.abc import Sequence

from dskd_compress.data.sources import DataSets, Images
from dskd_compress.data.streams import StreamSet
from dskd_export.errors import DataError


def check_data(sets: DataSets, *, every_class: bool = True) -> None:
    """Refuse data on which a training would fail late or learn nonsense.

    Args:
        sets: what `open_data` gave.
        every_class: a class without images is refused; a model that is ready can be tried without some.

    Raises:
        DataError: no images, fewer than two classes, training and validation with other classes, or a
            class without images. What is wrong is named.
    """
    for split, images in (("training", sets.train), ("validation", sets.val)):
        if not isinstance(images, StreamSet) and len(images) == 0:
            raise DataError(
                f"{sets.source}: the {split} set has no images.",
                "Check data.source, data.train_split and data.val_split; "
                "files count as images by their ending (.jpg .png .webp .bmp .tif .ppm ...).",
            )
    _check_classes(sets)
    if every_class:
        for split, images in (("training", sets.train), ("validation", sets.val)):
            _check_empty(sets.source, split, images)
    classes = len(sets.classes)
    if classes < 2:
        raise DataError(
            f"{sets.source}: only one class, '{sets.classes[0]}'.",
            "Is data.source one level too high? It must hold one folder for every class, or train/ and val/.",
        )


def _check_classes(sets: DataSets) -> None:
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
    raise DataError(
        f"{sets.source}: the classes of training ({len(train)}) and validation ({len(val)}) differ; "
        f"{'; '.join(parts)}.",
        "Both must have the same class folders.",
    )


def _check_empty(source: str, split: str, images: Images) -> None:
    if isinstance(images, StreamSet):
        return
    filled = {images.label(index) for index in range(len(images))}
    empty = [name for label, name in enumerate(images.classes) if label not in filled]
    if empty:
        raise DataError(
            f"{source}: the {split} set has no images in {'class' if len(empty) == 1 else 'the classes'} "
            f"{_some(empty)}.",
            "Add images, or remove the class from both sets.",
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
