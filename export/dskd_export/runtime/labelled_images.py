"""Read the labelled images of a folder: class folders, or images with a `labels.csv`."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import posixpath
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dskd_export.documents.base import DataFacts
from dskd_export.errors import DataError
from dskd_export.files.bounded import read_bounded
from dskd_export.files.names import describe_difference, find_look_alikes, make_printable
from dskd_export.runtime.folder_tree import DANGLING, FILE, DiskTree, kind_of
from dskd_export.runtime.image_scan import UNLISTED, LeftOut, images_below, scan_classes
from dskd_export.runtime.images import (
    UnreadableImage,
    describe_unreadable,
    list_unreadable,
    open_image,
    suggest_tolerance,
)

LABELS_CSV = "labels.csv"
_MAX_TABLE = 128 << 20  # bytes
_MAX_ROWS = 2_000_000

_LAYOUT = (
    f"Lay the images out as CLASS/IMAGE, or put a {LABELS_CSV} with the images, with the columns file and label; "
    "the classes are those of labels.txt in the bundle."
)
_NAMED = 3
_MAX_DIGITS = 10  # of a class's number


@dataclass(frozen=True)
class LabelledImages:
    """Images with the class of each.

    Attributes:
        folder: where they lie.
        files: relative to it.
        labels: int64 [N], indices of the bundle's classes.
        classes: of the bundle.
        left_out: what else lies in the folder, counted by reason.
    """

    folder: Path
    files: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    def first(self, count: int | None, seed: int) -> LabelledImages:
        """At most so many, drawn at random: those of one class lie together in a folder."""
        if count is None or count >= len(self.files):
            return self
        chosen = np.sort(np.random.default_rng(seed).permutation(len(self.files))[:count])
        return replace(self, files=tuple(self.files[index] for index in chosen), labels=self.labels[chosen])

    def read(self, skipped: list[str], max_unreadable: float | None) -> Iterator[tuple[Image.Image, int]]:
        """Decode them one after the other; see `read_named`."""
        return ((image, label) for image, label, _ in self.read_named(skipped, max_unreadable))

    def read_named(
        self, skipped: list[str], max_unreadable: float | None
    ) -> Iterator[tuple[Image.Image, int, str]]:
        """Decode them one after the other, each with its label and its name.

        Args:
            skipped: gets the names of those that cannot be read.
            max_unreadable: share of them that is tolerated; None: all have to be readable, whatever is set.

        Raises:
            DataError: more cannot be read.
        """
        failures = list[UnreadableImage]()
        for index, (file, label) in enumerate(zip(self.files, self.labels, strict=True)):
            try:
                image = self._open(index)
            except UnreadableImage as error:
                failures.append(error)
                skipped.append(make_printable(file))
                if len(skipped) > (max_unreadable or 0) * len(self.files):
                    raise self._explain_unreadable(failures, max_unreadable) from error
                continue
            yield image, int(label), make_printable(file)

    def _open(self, index: int) -> Image.Image:
        return open_image(self.folder / self.files[index], make_printable(self.files[index]))

    def _explain_unreadable(self, met: Sequence[UnreadableImage], max_unreadable: float | None) -> DataError:
        total = len(self.files)
        failures, complete = list_unreadable(total, self._open, met)
        hint = "Repair or delete the files."
        if max_unreadable is not None:
            setting = suggest_tolerance(len(failures), total)
            hint = f"Repair or delete the files, or leave them out: {setting}"
        return DataError(
            f"{self.folder}: {'' if complete else 'at least '}{len(failures)} of {total} images cannot be read: "
            f"{describe_unreadable(failures)}.",
            hint,
        )

    def facts(self, skipped: Sequence[str]) -> DataFacts:
        """Which images they are; the sha256 is that of their names, sizes and labels."""
        digest = hashlib.sha256()
        for file, label in zip(self.files, self.labels, strict=True):
            try:
                size = (self.folder / file).stat().st_size
            except OSError:
                size = 0  # unreadable, and reported as that
            digest.update(f"{make_printable(file)}\0{size}\0{label}\n".encode())
        return DataFacts(
            source=make_printable(str(self.folder)),
            sha256=digest.hexdigest(),
            sha256_of="listing",
            train_images=None,
            val_images=len(self.files),
            classes=list(self.classes),
            skipped=list(skipped),
            left_out=list(self.left_out),
        )


def open_labelled(folder: Path, classes: Sequence[str]) -> LabelledImages:
    """Find the images of a folder and their classes.

    Args:
        folder: holds `labels.csv`, or a folder for each class. A class of the bundle may be missing.
        classes: of the bundle, in the order of the logits.

    Raises:
        DataError: there are none, a class is not the bundle's, or a file of the table is not there.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; --images needs a folder of labelled images.", _suggest(folder))
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder.", "Name a folder of labelled images with --images.")
    index_of = {name: index for index, name in enumerate(classes)}
    table = folder / LABELS_CSV
    left_out = LeftOut()
    found = (_list_table if kind_of(table) == FILE else _list_folders)(folder, index_of, left_out)
    if not found:
        raise DataError(f"{folder} holds no labelled images.", _LAYOUT)
    return LabelledImages(
        folder,
        tuple(file for file, _ in found),
        np.array([label for _, label in found], np.int64),
        tuple(classes),
        tuple(left_out.lines()),
    )


def open_images(
    folder: Path | None, classes: Sequence[str], count: int | None, seed: int, on_left_out: Callable[[str], object]
) -> LabelledImages | None:
    """Find the labelled images of a folder, at most `count` of them; None where no folder is given.

    Args:
        folder: see `open_labelled`.
        classes: of the bundle.
        count: None: all.
        seed: draws them.
        on_left_out: called with what else lies in the folder, in words.

    Raises:
        DataError: see `open_labelled`.
    """
    if folder is None:
        return None
    labelled = open_labelled(folder, classes)
    if labelled.left_out:
        on_left_out(f"{make_printable(str(folder))}: left out {', '.join(labelled.left_out)}")
    return labelled.first(count, seed)


def _suggest(file: Path) -> str:
    """What to do with a file that was given for a folder."""
    if file.name == LABELS_CSV:
        return f"Use its folder: --images {shlex.quote(str(file.parent))}"
    if ".tar" not in file.suffixes and file.suffix != ".tgz":
        return _LAYOUT
    folder = shlex.quote(file.name.partition(".")[0] or "images")
    return f"Unpack it into a folder: mkdir {folder} && tar -xf {shlex.quote(str(file))} -C {folder}"


def _list_folders(folder: Path, index_of: Mapping[str, int], left_out: LeftOut) -> list[tuple[str, int]]:
    found = scan_classes(DiskTree(folder), "", left_out)
    if found.loose:
        raise DataError(
            f"{folder} holds images without a class, for example {make_printable(found.loose[0])}.", _LAYOUT
        )
    unknown = [name for name in sorted(found.classes) if name not in index_of]
    if unknown:
        pairs = "; ".join(
            f"{describe_difference(*pair)} look the same" for pair in find_look_alikes(unknown, index_of)[:_NAMED]
        )
        raise DataError(
            f"{folder}: {_some(unknown)} is no class of the bundle, which has {_some(list(index_of))}"
            f"{f' ({pairs})' if pairs else ''}.",
            _LAYOUT,
        )
    return [
        (file, index_of[name])
        for name in sorted(found.classes)
        for file in sorted(found.classes[name], key=lambda file: file.split("/"))
    ]


def _list_table(folder: Path, index_of: Mapping[str, int], left_out: LeftOut) -> list[tuple[str, int]]:
    table = folder / LABELS_CSV
    found: dict[str, tuple[str, int, int]] = {}  # the plain path -> as written, label, line
    for line, name, label in _read_rows(table):
        index = index_of.get(label)
        if index is None and len(label) < _MAX_DIGITS and label.isdecimal() and int(label) < len(index_of):
            index = int(label)  # a class by its number, where none has that name
        if index is None:
            raise DataError(
                f"{table}, line {line}: '{label}' is no class of the bundle, which has {_some(list(index_of))}.",
                _LAYOUT,
            )
        path = _inside(folder, name)
        # A link that leads nowhere is an image that cannot be read, as in a class folder.
        if path is None or (kind := kind_of(folder / path)) not in (FILE, DANGLING):
            raise DataError(f"{table}, line {line}: there is no image {name} in the folder.", _LAYOUT)
        if kind == DANGLING and not os.path.lexists(folder / path):
            raise DataError(f"{table}, line {line}: there is no image {name} in the folder.", _LAYOUT)
        _, first, at = found.setdefault(path, (name, index, line))
        if first != index:
            raise DataError(
                f"{table}: {name} has the label '{list(index_of)[first]}' in line {at} and "
                f"'{list(index_of)[index]}' in line {line}.",
                "Remove one of the two lines.",
            )
    for name in images_below(DiskTree(folder), "", LeftOut()):  # what else lies there, no one means to be an image
        if name not in found:
            left_out.add(UNLISTED, name)
    return [(name, index) for name, index, _ in found.values()]


def _read_rows(table: Path) -> list[tuple[int, str, str]]:
    """Line, file and label of every row."""
    rows = []
    try:
        text = read_bounded(table, _MAX_TABLE).decode("utf-8-sig")
        if (lines := text.count("\n")) > _MAX_ROWS:
            raise DataError(f"{table} has {lines:,} lines; at most {_MAX_ROWS:,} are read.", _LAYOUT)
        reader = csv.DictReader(io.StringIO(text, newline=""))
        columns = list(reader.fieldnames or ())
        if not {"file", "label"} <= set(columns):
            raise DataError(
                f"{table} has no columns file and label{f': it has {_some(columns)}' if columns else ''}.", _LAYOUT
            )
        for row in reader:
            if row["file"] is None or row["label"] is None or any(row.get(None, ())):
                raise DataError(
                    f"{table}, line {reader.line_num}: {len(columns)} columns, but another number of values.",
                    "Separate them by commas, and quote what holds one.",
                )
            rows.append((reader.line_num, row["file"], row["label"]))
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not UTF-8.", "Save it again as CSV in UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"{table} is no table of text: {error}.", _LAYOUT) from error
    except OSError as error:
        raise DataError(f"{table}: {error.strerror}.", "Make it readable for this user.") from error
    return rows


def _inside(folder: Path, name: str) -> str | None:
    """The plain relative path of a file; None if it leads out of the folder other than by a link."""
    if name.startswith("/"):
        bases = [base for base in (folder.absolute(), folder.resolve()) if Path(name).is_relative_to(base)]
        name = os.path.relpath(name, bases[0]) if bases else ".."
    path = posixpath.normpath(name)
    return None if path in ("", ".", "..") or path.startswith("../") else path


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(f"'{name}'" for name in names[:_NAMED]) + more
