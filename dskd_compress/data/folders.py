"""Image folders: one folder a class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dskd_compress.data.image_set import StoredSet
from dskd_compress.data.naming import VAL_NAMES, is_hidden, is_image, natural_key
from dskd_export.errors import DataError
from dskd_export.runtime.images import open_image


class FolderSet:
    """Images of a folder whose subfolders are the classes; images may lie deeper in them."""

    def __init__(self, root: Path, folder: str = "") -> None:
        """Scan a folder.

        Args:
            root: the source; names are relative to it.
            folder: the split below `root`, or "" for `root` itself.

        Raises:
            DataError: there are no class folders, or there are images beside them.
        """
        self.root = root
        base = root / folder
        prefix = f"{folder}/" if folder else ""
        entries = sorted(os.scandir(base), key=lambda entry: natural_key(entry.name))
        class_entries = [entry for entry in entries if entry.is_dir() and not is_hidden(entry.name)]
        loose = [entry.name for entry in entries if not entry.is_dir() and is_image(entry.name)]
        if loose:
            raise unlabelled(f"{base}", prefix, loose)
        if not class_entries:
            raise DataError(
                f"{base} holds no class folders.",
                "Lay the images out as CLASS/IMAGE, or correct data.source and data.train_split.",
            )
        self._classes = tuple(entry.name for entry in class_entries)
        self.names: list[str] = []
        labels: list[int] = []
        for label, entry in enumerate(class_entries):
            files = sorted(_image_files(Path(entry.path), f"{prefix}{entry.name}", set()), key=natural_key)
            self.names.extend(files)
            labels.extend([label] * len(files))
        self.labels = np.asarray(labels, np.int64)

    @property
    def classes(self) -> tuple[str, ...]:
        """Folder names, in timm's natural order; empty folders included."""
        return self._classes

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Image.Image:
        """Image `index`, RGB."""
        return open_image(self.root / self.names[index], self.names[index])

    def label(self, index: int) -> int:
        """Class of image `index`."""
        return int(self.labels[index])

    def name(self, index: int) -> str:
        """Path of image `index`, relative to the source, with forward slashes."""
        return self.names[index]

    def stored_bytes(self, index: int) -> int:
        """Size of the file."""
        return (self.root / self.names[index]).stat().st_size

    def content(self, index: int) -> bytes:
        """The file."""
        return (self.root / self.names[index]).read_bytes()


def open_folder(root: Path, train_split: str, val_split: str | None) -> tuple[StoredSet, StoredSet | None]:
    """Open `root` as training and validation set; the second is None where it has to be split off.

    Raises:
        DataError: a split that the recipe names is not there, or the layout is not one of ours.
    """
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not is_hidden(entry.name))
    there = (
        f"It has: {', '.join(folders[:8])}{', ...' if len(folders) > 8 else ''}." if folders else "It has none."
    )
    if (root / train_split).is_dir():
        val = find_val_split(folders, val_split, str(root), there)
        return FolderSet(root, train_split), None if val is None else FolderSet(root, val)
    if train_split != "train" or val_split is not None:
        raise DataError(f"{root} has no folder '{train_split}'. {there}", "Correct data.train_split.")
    for name in VAL_NAMES:
        # A class may be called "test"; a folder with folders in it is a split.
        if name in folders and any(entry.is_dir() for entry in os.scandir(root / name)):
            raise DataError(
                f"{root} has '{name}' but no '{train_split}'. {there}", "Name it with data.train_split."
            )
    return FolderSet(root), None


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


def unlabelled(where: str, prefix: str, loose: list[str]) -> DataError:
    """Return the error for images that lie beside or instead of class folders."""
    return DataError(
        f"{where} holds {len(loose)} images in no class folder, so without a label: {prefix}{loose[0]}"
        f"{', ...' if len(loose) > 1 else '.'}",
        f"Move every image into {prefix}CLASS/.",
    )


def _image_files(folder: Path, name: str, visited: set[tuple[int, int]]) -> Iterator[str]:
    """Relative names of all images below a folder; links are followed, each folder once."""
    status = folder.stat()
    if (status.st_dev, status.st_ino) in visited:
        return
    visited.add((status.st_dev, status.st_ino))
    for entry in os.scandir(folder):
        if entry.is_dir():
            if not is_hidden(entry.name):
                yield from _image_files(Path(entry.path), f"{name}/{entry.name}", visited)
        elif is_image(entry.name):
            yield f"{name}/{entry.name}"
