"""Labelled images of a folder: class folders named as the labels, or images with a `labels.csv` beside them."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dskd_export.bounded import read_bounded
from dskd_export.documents import DataFacts
from dskd_export.errors import DataError
from dskd_export.runtime.images import UnreadableImage, open_image

LABELS_CSV = "labels.csv"
_MAX_TABLE = 128 << 20  # bytes
_MAX_ROWS = 2_000_000

_LAYOUT = (
    f"Lay the images out as CLASS/IMAGE, or put a {LABELS_CSV} beside them with the columns file and label; "
    "the classes are those of labels.txt in the bundle."
)
_NAMED = 3


@dataclass(frozen=True)
class LabelledImages:
    """Images with the class of each.

    Attributes:
        folder: where they lie.
        files: relative to it.
        labels: int64 [N], indices of the bundle's classes.
        classes: of the bundle.
    """

    folder: Path
    files: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def first(self, count: int | None, seed: int) -> LabelledImages:
        """At most so many, drawn at random: those of one class lie together in a folder."""
        if count is None or count >= len(self.files):
            return self
        chosen = np.sort(np.random.default_rng(seed).permutation(len(self.files))[:count])
        return LabelledImages(
            self.folder, tuple(self.files[index] for index in chosen), self.labels[chosen], self.classes
        )

    def read(self, skipped: list[str], max_unreadable: float) -> Iterator[tuple[Image.Image, int]]:
        """Decode them one after the other.

        Args:
            skipped: gets the names of those that cannot be read.
            max_unreadable: share of them that is tolerated.

        Raises:
            DataError: more cannot be read.
        """
        for file, label in zip(self.files, self.labels, strict=True):
            try:
                image = open_image(self.folder / file, file)
            except UnreadableImage as error:
                skipped.append(file)
                if len(skipped) > max_unreadable * len(self.files):
                    raise DataError(
                        f"{self.folder}: {len(skipped)} of {len(self.files)} images cannot be read, the last one: "
                        f"{error.message}",
                        "Repair or delete the files, or set data.max_unreadable.",
                    ) from error
                continue
            yield image, int(label)

    def facts(self, skipped: Sequence[str]) -> DataFacts:
        """Which images they are; the sha256 is that of their names, sizes and labels."""
        digest = hashlib.sha256()
        for file, label in zip(self.files, self.labels, strict=True):
            digest.update(f"{file}\0{(self.folder / file).stat().st_size}\0{label}\n".encode())
        return DataFacts(
            source=str(self.folder),
            sha256=digest.hexdigest(),
            sha256_of="listing",
            train_images=None,
            val_images=len(self.files),
            classes=list(self.classes),
            skipped=list(skipped),
        )


def open_labelled(folder: Path, classes: Sequence[str]) -> LabelledImages:
    """Find the images of a folder and their classes.

    Args:
        folder: holds `labels.csv`, or a folder for each class. A class of the bundle may be missing.
        classes: of the bundle, in the order of the logits.

    Raises:
        DataError: there are none, a class is not the bundle's, or a file of the table is not there.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder.", "Name a folder of labelled images with --images.")
    index_of = {name: index for index, name in enumerate(classes)}
    table = folder / LABELS_CSV
    found = _of_table(table, index_of) if table.is_file() else _of_folders(folder, index_of)
    if not found:
        raise DataError(f"{folder} holds no labelled images.", _LAYOUT)
    return LabelledImages(
        folder, tuple(file for file, _ in found), np.array([label for _, label in found], np.int64), tuple(classes)
    )


def _of_folders(folder: Path, index_of: Mapping[str, int]) -> list[tuple[str, int]]:
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    loose = [entry.name for entry in entries if not entry.is_dir() and _is_image(entry)]
    if loose:
        raise DataError(f"{folder} holds images without a class, for example {loose[0]}.", _LAYOUT)
    folders = [entry for entry in entries if entry.is_dir()]
    unknown = [entry.name for entry in folders if entry.name not in index_of]
    if unknown:
        raise DataError(
            f"{folder}: {_some(unknown)} is no class of the bundle; it has {_some(list(index_of))}.", _LAYOUT
        )
    return [
        (file.relative_to(folder).as_posix(), index_of[entry.name])
        for entry in folders
        for file in sorted(entry.rglob("*"))
        if _is_image(file) and not file.name.startswith(".")
    ]


def _of_table(table: Path, index_of: Mapping[str, int]) -> list[tuple[str, int]]:
    try:
        text = read_bounded(table, _MAX_TABLE).decode("utf-8-sig")
        if (lines := text.count("\n")) > _MAX_ROWS:
            raise DataError(f"{table} has {lines:,} lines; at most {_MAX_ROWS:,} are read.", _LAYOUT)
        reader = csv.DictReader(io.StringIO(text, newline=""))
        if not {"file", "label"} <= set(reader.fieldnames or ()):
            raise DataError(f"{table} has no columns file and label.", _LAYOUT)
        rows = [(reader.line_num, str(row["file"]), str(row["label"])) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} is no table of text: {error}.", _LAYOUT) from error
    found = []
    root = table.parent.resolve()
    for line, name, label in rows:
        index = index_of.get(label)
        if index is None and label.isdecimal() and len(label) < 10 and int(label) < len(index_of):
            index = int(label)  # a class by its number, where none has that name
        if index is None:
            raise DataError(
                f"{table}, line {line}: '{label}' is no class of the bundle; it has {_some(list(index_of))}.",
                _LAYOUT,
            )
        if not _is_within(root, name):
            raise DataError(f"{table}, line {line}: there is no image {name} in the folder.", _LAYOUT)
        found.append((name, index))
    return found


def _is_within(root: Path, name: str) -> bool:
    try:
        path = root / name
        return path.resolve().is_relative_to(root) and path.is_file()
    except (OSError, ValueError, RuntimeError):  # a name that no file has, or links in a circle
        return False


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in Image.registered_extensions() and path.is_file()


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(f"'{name}'" for name in names[:_NAMED]) + more
