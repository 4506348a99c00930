"""Image folders packed into one uncompressed tar, read in place."""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from dskd_compress.data.folders import VAL_NAMES, ScannedSet, find_val_split
from dskd_compress.data.image_set import StoredSet
from dskd_compress.data.tar_members import iter_tar_members
from dskd_export.errors import DataError
from dskd_export.files.names import make_printable
from dskd_export.runtime.folder_tree import DANGLING, DEVICE, FIFO, FILE, FOLDER, SPARSE, Entry
from dskd_export.runtime.image_scan import LeftOut, count_outside, is_data_folder, is_image
from dskd_export.runtime.images import UnreadableImage, convert_image_errors, open_image
from dskd_export.runtime.orientation import read_stored_orientation

_MAX_LINKS = 40  # followed for one path, as Linux does


class Member(NamedTuple):
    """What a name in a tar is."""

    kind: str
    offset: int = 0
    size: int = 0
    link: str | None = None  # where a symbolic link points, from the folder in which it lies


class TarTree:
    """The folders of a tar; links are followed inside it.

    Args:
        members: name -> what it is; every folder has a name.
        root: the folder in the tar that counts as the root.
    """

    def __init__(self, path: Path, members: dict[str, Member], root: str = "") -> None:
        self.path = path
        self.root = root
        self.members = members
        self._names: dict[str, list[str]] = {}
        for name in sorted(members):
            folder, _, last = name.rpartition("/")
            self._names.setdefault(folder, []).append(last)

    def at(self, folder: str) -> TarTree:
        """The same tar seen from one of its folders."""
        return TarTree(self.path, self.members, self._inside(folder))

    def entries(self, folder: str) -> list[Entry]:
        """Everything directly in a folder, sorted by name."""
        real = str(self.identity(folder))
        return [Entry(name, self._kind(f"{real}/{name}" if real else name)) for name in self._names.get(real, [])]

    def identity(self, folder: str) -> Hashable:
        """The name of the folder that links lead to."""
        return self._follow(self._inside(folder))

    def place(self, path: str) -> str:
        """The name in the tar."""
        return f"{self.path}: {make_printable(self._inside(path))}" if self._inside(path) else str(self.path)

    def target(self, path: str) -> str:
        """Where a link points."""
        member = self.members.get(self._inside(path))
        return make_printable(member.link) if member and member.link else "what is not in the tar"

    def rename_hint(self, path: str, name: str) -> str:
        """How to give a folder another name."""
        return f"Unpack it, rename the folder, for example to '{name}', and pack it again with `tar -cf`."

    def locate(self, path: str) -> Member:
        """Find the bytes of a file; its kind is `DANGLING` where links lead out of the tar."""
        real = self._follow(self._inside(path))
        return self.members.get(real, Member(DANGLING)) if real is not None else Member(DANGLING)

    def _inside(self, path: str) -> str:
        return "/".join(part for part in (self.root, path) if part)

    def _kind(self, name: str) -> str:
        member = self.members[name]
        if member.link is None:
            return member.kind
        real = self._follow(name)
        return DANGLING if real is None else self.members[real].kind if real else FOLDER

    def _follow(self, path: str) -> str | None:
        """The member that a path leads to; None where a link leads nowhere or out of the tar."""
        done: list[str] = []
        pending = path.split("/")[::-1]
        links = 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not done:
                    return None
                done.pop()
                continue
            member = self.members.get("/".join([*done, part]))
            if member is None:
                return None
            if member.link is None:
                done.append(part)
                continue
            links += 1
            if links > _MAX_LINKS or member.link.startswith("/"):
                return None
            pending.extend(member.link.split("/")[::-1])
        return "/".join(done)


class TarSet(ScannedSet):
    """Images of a tar; nothing is extracted.

    Images are read with `pread` at the offsets of the index, so that worker processes that share
    the descriptor do not move each other's position.
    """

    def __init__(self, tree: TarTree, folder: str, left_out: LeftOut) -> None:
        """Scan `folder`, as `ScannedSet` does."""
        super().__init__(tree, folder, left_out)
        self.path = tree.path
        self.members = [tree.locate(path) for path in self.paths]
        self._descriptor: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptor": None}  # a descriptor means nothing in another process

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            os.close(self._descriptor)  # type: ignore[arg-type]

    def image(self, index: int) -> Image.Image:
        """Image `index`, RGB."""
        name = self.name(index)
        if self.members[index].kind == DANGLING:
            raise UnreadableImage(name, "a link to what is not in the tar", "Pack the folder again.")
        with convert_image_errors(name):
            return open_image(self.content(index), name)

    def orientation(self, index: int) -> int:
        """Orientation in the image's headers."""
        return read_stored_orientation(io.BytesIO(self.content(index)))

    def stored_bytes(self, index: int) -> int:
        """Size of the member."""
        return self.members[index].size

    def content(self, index: int) -> bytes:
        """The member; shorter than its size where the tar is truncated, empty for a dangling link."""
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(self._descriptor, self.members[index].size, self.members[index].offset)


def open_tar(
    path: Path, train_split: str, val_split: str | None, left_out: LeftOut
) -> tuple[StoredSet, StoredSet | None]:
    """Open a tar of class folders, with or without train/ and val/ on top.

    One folder that wraps everything is looked through.

    Raises:
        DataError: compressed, damaged, a split that is not there, or a member name that leaves the tar.
    """
    tree = TarTree(path, _index(path))
    while True:
        tops, images = _data_in(tree, "")
        if len(tops) != 1 or images or train_split in tops:
            break
        below, images = _data_in(tree, tops[0])
        if not below or images:
            break
        count_outside(tree, tops, left_out)
        tree = tree.at(tops[0])
    splits = [name for name in tops if _data_in(tree, name)[0]]
    there = f"It has: {', '.join(make_printable(name) for name in tops[:8])}{', ...' if len(tops) > 8 else ''}."
    if train_split in splits:
        val = find_val_split(splits, val_split, str(path), there)
        chosen = [train_split] if val is None else [train_split, val]
        count_outside(tree, chosen, left_out)
        sets = [TarSet(tree, split, left_out) for split in chosen]
        return sets[0], None if val is None else sets[1]
    if train_split != "train" or val_split is not None or any(name in splits for name in VAL_NAMES):
        raise DataError(f"{path} has no folder '{train_split}'. {there}", "Correct data.train_split.")
    return TarSet(tree, "", left_out), None


def _data_in(tree: TarTree, folder: str) -> tuple[list[str], bool]:
    """Folders directly in a folder, and whether images lie next to them."""
    entries = tree.entries(folder)
    folders = [name for name, kind in entries if kind == FOLDER and is_data_folder(name)]
    return folders, any(kind == FILE and is_image(name) for name, kind in entries)


def _index(path: Path) -> dict[str, Member]:
    """Everything in the tar by its name; of two members of one name the last one counts, as in extraction."""
    members: dict[str, Member] = {}
    for member in iter_tar_members(path):
        name = posixpath.normpath(member.name)
        if name.startswith(("/", "../")) or name == "..":
            raise DataError(
                f"{path}: member '{make_printable(member.name)}' leaves the archive.", "Pack the folder again."
            )
        if name != ".":
            members[name] = _describe(member, members)
    for name in list(members):
        while name := posixpath.dirname(name):
            above = members.get(name)
            if above is not None and above.kind == FOLDER:
                break
            members[name] = Member(FOLDER)  # many tars list files alone
    return members


def _describe(member: tarfile.TarInfo, earlier: dict[str, Member]) -> Member:
    if member.islnk():  # another name of an earlier member
        return earlier.get(posixpath.normpath(member.linkname), Member(DANGLING))
    if member.issym():
        return Member(DANGLING, link=member.linkname)
    if member.isdir():
        return Member(FOLDER)
    if not member.isreg():
        return Member(FIFO if member.isfifo() else DEVICE)
    return Member(SPARSE) if member.issparse() else Member(FILE, member.offset_data, member.size)
