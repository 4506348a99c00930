"""Image folders: one folder a class."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from dskd_compress.data.image_set import LabelledSet, StoredSet
from dskd_export.errors import DataError
from dskd_export.files.atomic import open_plain
from dskd_export.files.names import make_printable
from dskd_export.runtime.folder_tree import DANGLING, FOLDER, DiskTree, Tree
from dskd_export.runtime.image_scan import (
    LeftOut,
    count_outside,
    is_data_folder,
    make_dangling_error,
    scan_classes,
)
from dskd_export.runtime.images import open_image
from dskd_export.runtime.orientation import UPRIGHT, read_stored_orientation

VAL_NAMES = ("val", "validation", "test")


def natural_key(name: str) -> tuple[list[int | str], str]:
    """Sort key of class folders, the same order as timm's: numbers by value, letter case ignored.

    A class map that timm made for the same folders therefore fits; equal keys fall back to the name.
    """
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if position % 2 else part for position, part in enumerate(parts)], name


class ScannedSet(LabelledSet):
    """Names and labels of the images in class folders, on a disk or in an archive.

    The classes are the folder names, in timm's natural order; empty folders included.
    """

    def __init__(self, tree: Tree, folder: str, left_out: LeftOut) -> None:
        """Scan for images; they may lie deeper in the class folders.

        Args:
            tree: names are relative to its root.
            folder: the split, or "" for the root itself.
            left_out: everything that is no image is counted there.

        Raises:
            DataError: as `scan_classes`; there are no class folders, or images lie next to them.
        """
        found = scan_classes(tree, folder, left_out)
        if found.loose:
            prefix = f"{folder}/" if folder else ""
            raise DataError(
                f"{tree.place(folder)} holds {len(found.loose)} images in no class folder, so without a label: "
                f"{prefix}{make_printable(found.loose[0])}{', ...' if len(found.loose) > 1 else '.'}",
                f"Move every image into {prefix}CLASS/.",
            )
        if not found.classes:
            raise DataError(
                f"{tree.place(folder)} holds no class folders.",
                "Lay the images out as CLASS/IMAGE, or correct data.source and data.train_split.",
            )
        self.classes = tuple(sorted(found.classes, key=natural_key))
        self.paths: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(self.classes):
            files = sorted(found.classes[name], key=natural_key)
            self.paths.extend(files)
            labels.extend([label] * len(files))
        self.labels = np.asarray(labels, np.int64)

    def name(self, index: int) -> str:
        """Path of image `index`, relative to the source, with forward slashes."""
        return make_printable(self.paths[index])

    def has_metadata(self) -> bool:
        """Files may have EXIF."""
        return True


class FolderSet(ScannedSet):
    """Images of a folder whose subfolders are the classes."""

    def __init__(self, root: Path, folder: str, left_out: LeftOut) -> None:
        """Scan `folder` below `root`, as `ScannedSet` does."""
        super().__init__(DiskTree(root), folder, left_out)
        self.root = root
        self.folder = folder

    def image(self, index: int) -> Image.Image:
        """Image `index`, RGB."""
        return open_image(self.root / self.paths[index], self.name(index))

    def stored_bytes(self, index: int) -> int:
        """Size of the file; 0 where it cannot be read, which the loaders report."""
        try:
            return (self.root / self.paths[index]).stat().st_size
        except OSError:
            return 0

    def content(self, index: int) -> bytes:
        """The file; nothing where it cannot be read, which the loaders report."""
        try:
            with open_plain(self.root / self.paths[index], follow_links=True) as file:
                return file.read()
        except OSError:
            return b""

    def orientation(self, index: int) -> int:
        """Orientation in the file's headers; upright where it cannot be read, which the loaders report."""
        try:
            with open_plain(self.root / self.paths[index], follow_links=True) as file:
                return read_stored_orientation(file)
        except OSError:
            return UPRIGHT


def open_folder(
    root: Path, train_split: str, val_split: str | None, left_out: LeftOut
) -> tuple[StoredSet, StoredSet | None]:
    """Open `root` as training and validation set; the second is None where it has to be split off.

    Raises:
        DataError: a split that the recipe names is not there, or the layout is not one of ours.
    """
    tree = DiskTree(root)
    kinds = dict(tree.entries(""))
    folders = sorted(name for name, kind in kinds.items() if kind == FOLDER and is_data_folder(name))
    there = f"It has: {_some(folders)}." if folders else "It has none."
    for name in (train_split, *((val_split,) if val_split else VAL_NAMES)):
        if kinds.get(name) == DANGLING:
            raise make_dangling_error(tree, name)
    if (root / train_split).is_dir():
        val = find_val_split(folders, val_split, str(root), there)
        splits = [train_split] if val is None else [train_split, val]
        count_outside(tree, splits, left_out)
        sets = [FolderSet(root, split, left_out) for split in splits]
        return sets[0], None if val is None else sets[1]
    if train_split != "train" or val_split is not None:
        raise DataError(f"{root} has no folder '{train_split}'. {there}", "Correct data.train_split.")
    for name in VAL_NAMES:
        # A class may be called "test"; a folder with folders in it is a split.
        if name in folders and any(kind == FOLDER for _, kind in tree.entries(name)):
            raise DataError(
                f"{root} has '{name}' but no '{train_split}'. {there}", "Name it with data.train_split."
            )
    return FolderSet(root, "", left_out), None


def find_val_split(splits: list[str], val_split: str | None, where: str, there: str) -> str | None:
    """Choose the validation split: the one named, else val, validation or test, else None.

    Raises:
        DataError: the one named is not there.
    """
    if val_split is not None:
        if val_split not in splits:
            raise DataError(f"{where} has no split '{val_split}'. {there}", "Correct data.val_split.")
        return val_split
    return next((name for name in VAL_NAMES if name in splits), None)


def _some(names: list[str]) -> str:
    return ", ".join(make_printable(name) for name in names[:8]) + (", ..." if len(names) > 8 else "")
