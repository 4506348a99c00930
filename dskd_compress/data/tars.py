"""Image folders packed into one uncompressed tar, read in place."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dskd_compress.data.folders import find_val_split, unlabelled
from dskd_compress.data.image_set import StoredSet
from dskd_compress.data.naming import VAL_NAMES, is_hidden, is_image, natural_key
from dskd_compress.data.tar_members import tar_members
from dskd_export.errors import DataError
from dskd_export.runtime.images import open_image, reading

Member = tuple[str, int, int]  # name, offset, size


class TarSet:
    """Images of a tar; nothing is extracted.

    Images are read with `pread` at the offsets of the index, so that worker processes that share
    the descriptor do not move each other's position.
    """

    def __init__(self, path: Path, members: list[Member], folder: str) -> None:
        """Take the members below `folder` ("" for all); the next part of a name is the class.

        Raises:
            DataError: an image lies in no class folder.
        """
        self.path = path
        self._descriptor: int | None = None
        prefix = f"{folder}/" if folder else ""
        inside = [member for member in members if member[0].startswith(prefix)]
        loose = [name for name, _, _ in inside if "/" not in name[len(prefix) :]]
        if loose:
            raise unlabelled(f"{path}", prefix, [name[len(prefix) :] for name in loose])
        classes = {name[len(prefix) :].split("/")[0] for name, _, _ in inside}
        self._classes = tuple(sorted(classes, key=natural_key))
        label_of = {name: label for label, name in enumerate(self._classes)}
        self.members = sorted(
            inside, key=lambda m: (label_of[m[0][len(prefix) :].split("/")[0]], natural_key(m[0]))
        )
        self.labels = np.asarray([label_of[m[0][len(prefix) :].split("/")[0]] for m in self.members], np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptor": None}  # a descriptor means nothing in another process

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            os.close(self._descriptor)  # type: ignore[arg-type]

    @property
    def classes(self) -> tuple[str, ...]:
        """Folder names in the tar, in timm's natural order."""
        return self._classes

    def __len__(self) -> int:
        return len(self.members)

    def image(self, index: int) -> Image.Image:
        """Image `index`, RGB."""
        name = self.members[index][0]
        with reading(name):
            return open_image(self.content(index), name)

    def label(self, index: int) -> int:
        """Class of image `index`."""
        return int(self.labels[index])

    def name(self, index: int) -> str:
        """Name in the tar."""
        return self.members[index][0]

    def stored_bytes(self, index: int) -> int:
        """Size of the member."""
        return self.members[index][2]

    def content(self, index: int) -> bytes:
        """The member; shorter than its size where the tar is truncated."""
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        _, offset, size = self.members[index]
        return os.pread(self._descriptor, size, offset)


def open_tar(path: Path, train_split: str, val_split: str | None) -> tuple[StoredSet, StoredSet | None]:
    """Open a tar of class folders, with or without train/ and val/ on top.

    One folder that wraps everything is looked through.

    Raises:
        DataError: compressed, damaged, a split that is not there, or a member name that leaves the tar.
    """
    members = _index(path)
    while True:
        tops = {name.split("/")[0] for name, _, _ in members}
        if len(tops) != 1 or train_split in tops or any(name.count("/") < 2 for name, _, _ in members):
            break
        members = [(name.split("/", 1)[1], offset, size) for name, offset, size in members]
    splits = sorted({name.split("/")[0] for name, _, _ in members if name.count("/") >= 2})
    there = f"It has: {', '.join(sorted(tops)[:8])}{', ...' if len(tops) > 8 else ''}."
    if train_split in splits:
        val = find_val_split(splits, val_split, str(path), there)
        return TarSet(path, members, train_split), None if val is None else TarSet(path, members, val)
    if train_split != "train" or val_split is not None or any(name in splits for name in VAL_NAMES):
        raise DataError(f"{path} has no folder '{train_split}'. {there}", "Correct data.train_split.")
    return TarSet(path, members, ""), None


def _index(path: Path) -> list[Member]:
    """Name, offset and size of every image."""
    members: list[Member] = []
    for member in tar_members(path):
        name = posixpath.normpath(member.name)
        if name.startswith(("/", "../")) or name == "..":
            raise DataError(f"{path}: member '{member.name}' leaves the archive.", "Pack the folder again.")
        if not member.isreg() or member.issparse() or not is_image(name):
            continue
        if not any(is_hidden(part) for part in name.split("/")[:-1]):
            members.append((name, member.offset_data, member.size))
    return members
