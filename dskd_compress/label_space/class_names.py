"""Names of a teacher's classes."""

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
    """How many classes there are, and what they are called where that is known.

    Attributes:
        names: unique; empty where they are not known.
        also: other words for a class, in the order of the classes; one that several classes have names none.
    """

    count: int
    names: Sequence[str] = ()
    also: Sequence[Sequence[str]] = ()
    _index: dict[str, int | None] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for index, words in enumerate(self.also):
            for word in {word.casefold() for word in words}:
                self._index[word] = None if word in self._index else index
        self._index.update({name: index for index, name in enumerate(self.names)})

    def find(self, name: str) -> int | None:
        """The class of a name, or of another word for it in any case."""
        index = self._index.get(name)
        return index if index is not None else self._index.get(name.casefold())

    def shown(self, index: int) -> str:
        """A class for messages."""
        return self.names[index] if self.names else str(index)


def read_class_names(source: str, count: int) -> ClassNames:
    """Names from a text file, one a line, or of an ImageNet that timm knows.

    Args:
        source: path, or one of `IMAGENETS`.
        count: classes that the teacher has.

    Raises:
        RecipeError: no such file or set, names that are there twice, or another number of them.
    """
    if source in IMAGENETS:
        return _checked(_imagenet(source), source, count)
    path = Path(source).expanduser()
    hint = f"Give a text file with one name a line, or one of {', '.join(IMAGENETS)}."
    if not path.is_file():
        raise RecipeError(f"teacher.class_names: {source}: no such file.", hint)
    if path.stat().st_size > _MAX_BYTES:
        raise RecipeError(f"teacher.class_names: {source} is too large to be a list of names.", hint)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise RecipeError(f"teacher.class_names: {source} cannot be read as UTF-8 text.", hint) from error
    names = [line.strip() for line in lines if line.strip()]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise RecipeError(f"teacher.class_names: {source}: '{twice[0]}' is there twice.", hint)
    return _checked(ClassNames(len(names), names), source, count)


def _checked(names: ClassNames, source: str, count: int) -> ClassNames:
    if names.count != count:
        raise RecipeError(
            f"teacher.class_names: {source} names {names.count} classes, the teacher has {count}.",
            "Name the classes in the order of the teacher's outputs, or set teacher.kwargs.num_classes.",
        )
    return names


def names_of_timm(model: Any) -> ClassNames:
    """Names that timm has for the classes of its pretrained weights: synsets of ImageNet and their lemmas."""
    import_timm()
    from timm.data import infer_imagenet_subset

    count = int(model.num_classes)
    config = getattr(model, "pretrained_cfg", None) or {}
    labels = config.get("label_names")
    if labels and len(labels) == count:
        words = config.get("label_descriptions") or {}
        return ClassNames(count, tuple(labels), [_words(words.get(label, "")) for label in labels])
    subset = infer_imagenet_subset(model)
    if subset in IMAGENETS and config.get("num_classes") == count:
        names = _imagenet(subset)
        if names.count == count:
            return names
    return ClassNames(count)


def names_for_device(classes: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Names of a student's classes as the device will show them, and the same in words where they are synsets.

    Classes that are only numbered, as many as an ImageNet has, are that ImageNet's; all others keep their names.
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
    try:  # timm has the words of every synset of ImageNet, not only of the thousand
        return classes, tuple(info.label_name_to_description(name) for name in classes)
    except KeyError:
        return classes, None


def _imagenet(subset: str) -> ClassNames:
    import_timm()
    from timm.data import ImageNetInfo

    info = ImageNetInfo(subset)
    names = info.label_names()
    return ClassNames(len(names), names, [_words(text) for text in info.label_descriptions()])


def _words(description: str) -> list[str]:
    parts = [part.strip() for part in description.split(",")]
    return [word for word in {description.strip(), *parts} if word]
