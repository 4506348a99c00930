"""Names of classes: of a teacher, and as a device shows them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dskd_compress.timm_import import import_timm
from dskd_export.errors import RecipeError

IMAGENETS = ("imagenet-1k", "imagenet-12k", "imagenet-22k", "imagenet-21k-goog", "imagenet-21k-miil")
_MAX_BYTES = 4 * 2**20


@dataclass(frozen=True)
class ClassNames:
    """The number of classes and, if known, their names.

    Attributes:
        also: synonyms in the order of the classes; a synonym of several classes is ignored.
    """

    count: int
    names: Sequence[str] = ()  # unique; empty: unknown
    also: Sequence[Sequence[str]] = ()
    _index: dict[str, int | None] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for index, words in enumerate(self.also):
            for word in {word.casefold() for word in words}:
                self._index[word] = None if word in self._index else index
        self._index.update({name: index for index, name in enumerate(self.names)})

    def find(self, name: str) -> int | None:
        """Find the class of a name, or of a synonym in any case."""
        index = self._index.get(name)
        return index if index is not None else self._index.get(name.casefold())

    def show(self, index: int) -> str:
        """Show a class in messages."""
        return self.names[index] if self.names else str(index)


def read_class_names(source: str, count: int) -> ClassNames:
    """Read names from a text file, one per line, or take those of an ImageNet of timm.

    Args:
        source: path, or one of `IMAGENETS`.

    Raises:
        RecipeError: no such file or set, a duplicate name, or another number of names.
    """
    if source in IMAGENETS:
        return _check_count(_read_imagenet(source), source, count)
    path = Path(source).expanduser()
    hint = f"Set teacher.class_names to a text file with one name per line, or to one of {', '.join(IMAGENETS)}."
    if not path.is_file():
        raise RecipeError(f"teacher.class_names: {source}: no such file.", hint)
    if path.stat().st_size > _MAX_BYTES:
        raise RecipeError(f"teacher.class_names: {source} is too large for a list of names.", hint)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise RecipeError(f"teacher.class_names: {source} cannot be read as UTF-8 text.", hint) from error
    names = [line.strip() for line in lines if line.strip()]
    duplicates = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if duplicates:
        raise RecipeError(f"teacher.class_names: {source}: duplicate name '{duplicates[0]}'.", hint)
    return _check_count(ClassNames(len(names), names), source, count)


def _check_count(names: ClassNames, source: str, count: int) -> ClassNames:
    if names.count != count:
        raise RecipeError(
            f"teacher.class_names: {source} has {names.count} names, the teacher has {count} classes.",
            "List the names in the order of the teacher's outputs, or set teacher.kwargs.num_classes.",
        )
    return names


def find_timm_names(model: Any) -> ClassNames:
    """Find timm's names for the classes of its pretrained weights: synsets of ImageNet and their lemmas."""
    import_timm()
    from timm.data import infer_imagenet_subset

    count = int(model.num_classes)
    config = getattr(model, "pretrained_cfg", None) or {}
    labels = config.get("label_names")
    if labels and len(labels) == count:
        words = config.get("label_descriptions") or {}
        return ClassNames(count, tuple(labels), [_split_words(words.get(label, "")) for label in labels])
    subset = infer_imagenet_subset(model)
    if subset in IMAGENETS and config.get("num_classes") == count:
        names = _read_imagenet(subset)
        if names.count == count:
            return names
    return ClassNames(count)


def names_for_device(classes: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Name the classes of a student for the device, and describe them in words if they are synsets.

    Classes that are only numbered and as many as those of an ImageNet get its names; others keep theirs.
    """
    import_timm()
    from timm.data import ImageNetInfo, infer_imagenet_subset

    if classes == tuple(map(str, range(len(classes)))):
        subset = infer_imagenet_subset({"num_classes": len(classes)})
        names = tuple(ImageNetInfo(subset).label_names()) if subset else ()
        classes = names if len(names) == len(classes) else classes
    if not all(re.fullmatch(r"n\d{8}", name) for name in classes):
        return classes, None
    info = ImageNetInfo()
    try:  # timm describes every synset of ImageNet, not only the thousand
        return classes, tuple(info.label_name_to_description(name) for name in classes)
    except KeyError:
        return classes, None


def _read_imagenet(subset: str) -> ClassNames:
    import_timm()
    from timm.data import ImageNetInfo

    info = ImageNetInfo(subset)
    names = info.label_names()
    return ClassNames(len(names), names, [_split_words(text) for text in info.label_descriptions()])


def _split_words(description: str) -> list[str]:
    parts = [part.strip() for part in description.split(",")]
    return [word for word in {description.strip(), *parts} if word]
