"""Decide which files are images and which folders are classes, for training, validation and the device.

- A file is an image if Pillow opens its suffix (`image_suffixes`). Of a format with several frames (GIF, TIFF,
  MPO, AVIF) the first frame is the image. HEIC and camera raw need other libraries: those files are left out.
- Links to files and folders are followed, each folder once. A link to an image that leads nowhere is an
  unreadable image; one in place of a class folder is an error.
- FIFOs, sockets and devices are never opened.
- Hidden files, and folders that systems and network drives leave behind, are no data.
- A file name that is not UTF-8 works; a class name that is not UTF-8 is refused, since results store it.

Everything left out is counted by reason.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from PIL import Image

from dskd_export.errors import DataError
from dskd_export.files.names import is_utf8, make_printable
from dskd_export.runtime.folder_tree import DANGLING, DEVICE, FIFO, FILE, FOLDER, SOCKET, SPARSE, Tree

# Registered by Pillow, but no photos: programs, films, weather data, metadata, pictures for Windows alone.
_NO_PHOTOS = frozenset({"EPS", "PDF", "MPEG", "BUFR", "GRIB", "HDF5", "IPTC", "WMF"})

# In lower case. Names that begin with a dot are hidden in any case.
_SYSTEM_FOLDERS = frozenset(
    (
        *("@eadir", "@recently-snapshot", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "__macosx"),
        *("__pycache__", "found.000", "lost+found", "network trash folder", "recycler"),
        *("system volume information", "temporary items"),
    )
)

NO_IMAGE = "file with no image suffix"
HIDDEN_FILE = "hidden file"
SYSTEM_FOLDER = "hidden or system folder"
OUTSIDE_IMAGE = "image outside the splits"
OUTSIDE_FOLDER = "folder outside the splits"
UNLISTED = "image that labels.csv does not list"
SEEN = "link to a folder that is scanned already"

# Reason -> its plural, in the order of the message.
_PLURAL = {
    NO_IMAGE: "files with no image suffix",
    HIDDEN_FILE: "hidden files",
    SYSTEM_FOLDER: "hidden or system folders",
    OUTSIDE_IMAGE: "images outside the splits",
    OUTSIDE_FOLDER: "folders outside the splits",
    UNLISTED: "images that labels.csv does not list",
    SEEN: "links to folders that are scanned already",
    DANGLING: "dangling links",
    FIFO: "FIFOs",
    SOCKET: "sockets",
    DEVICE: "devices",
    SPARSE: "sparse files",
}
_EXAMPLES = 4
_LENGTH = 40  # characters of an example


class LeftOut:
    """Count what a scan leaves out, by reason."""

    def __init__(self) -> None:
        self._examples: dict[str, Counter[str]] = {}

    def add(self, reason: str, example: str) -> None:
        """Count one file or folder; `example` names it, or its kind."""
        self._examples.setdefault(reason, Counter())[example] += 1

    def lines(self) -> list[str]:
        """Return one line for each reason: `3 files with no image suffix (.txt, .xml)`."""
        lines = []
        for reason, plural in _PLURAL.items():
            found = self._examples.get(reason, Counter())
            if found:
                names = [_shorten(name) for name in sorted(found)]
                shown = ", ".join(names[:_EXAMPLES]) + (", ..." if len(names) > _EXAMPLES else "")
                lines.append(f"{found.total()} {plural if found.total() > 1 else reason} ({shown})")
        return lines


class Scan(NamedTuple):
    """Images below one folder.

    Attributes:
        classes: class -> paths of its images, relative to the root of the tree. No order.
        loose: names of images that lie in no class folder.
    """

    classes: dict[str, list[str]]
    loose: list[str]


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Suffixes of the photos that the installed Pillow opens, in lower case: `jpg`, `jfif`, `png`, `avif`, ..."""
    Image.preinit()  # first, so that images are opened in the same order of formats as without a scan
    Image.init()
    formats = (set(Image.OPEN) | {"MPO"}) - _NO_PHOTOS  # the reader of JPEG opens MPO
    return frozenset(
        suffix.removeprefix(".") for suffix, format in Image.registered_extensions().items() if format in formats
    )


def is_image(name: str) -> bool:
    """Whether a file name is that of an image; hidden files are none."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem and dot) and suffix.lower() in image_suffixes() and not name.startswith(".")


def is_data_folder(name: str) -> bool:
    """Whether a folder may hold images: neither hidden nor left behind by a system."""
    return not name.startswith(".") and name.lower() not in _SYSTEM_FOLDERS


def scan_classes(tree: Tree, folder: str, left_out: LeftOut) -> Scan:
    """Find the images of every class folder directly in `folder`, at any depth.

    Args:
        tree: a disk or an archive.
        folder: holds one folder for each class; "" for the root.
        left_out: everything that is no image is counted there.

    Raises:
        DataError: a folder cannot be listed, or a class folder is a dangling link, not named in UTF-8, or the
            same folder as another class.
    """
    classes: list[str] = []
    loose: list[str] = []
    for name, kind in tree.entries(folder):
        path = f"{folder}/{name}" if folder else name
        if kind == FOLDER:
            if is_data_folder(name):
                classes.append(name)
            else:
                left_out.add(SYSTEM_FOLDER, name)
        elif kind in (FILE, DANGLING) and is_image(name):
            loose.append(name)
        elif kind == DANGLING and is_data_folder(name):
            raise make_dangling_error(tree, path)
        else:
            _count(name, kind, left_out)
    paths = {name: f"{folder}/{name}" if folder else name for name in classes}
    visited: dict[Hashable, str] = {tree.identity(folder): folder}
    for name, path in paths.items():
        if not is_utf8(name):
            guess = name.encode("utf-8", "surrogateescape").decode("latin-1")
            raise DataError(
                f"The class folder {tree.place(path)} is not named in UTF-8.", tree.rename_hint(path, guess)
            )
        other = visited.setdefault(tree.identity(path), path)
        if other != path:
            raise _same_folder(tree, path, other)
    return Scan({name: images_below(tree, path, left_out, visited) for name, path in paths.items()}, loose)


def images_below(tree: Tree, top: str, left_out: LeftOut, visited: dict[Hashable, str] | None = None) -> list[str]:
    """Find all images below a folder, at any depth, each folder once.

    Args:
        tree: a disk or an archive.
        top: the folder; "" for the root.
        left_out: everything that is no image is counted there.
        visited: identity -> path of folders that are not entered again; grows.

    Raises:
        DataError: a folder cannot be listed, or is reached from two classes.
    """
    visited = {tree.identity(top): top} if visited is None else visited
    images: list[str] = []
    folders = [top]
    while folders:
        folder = folders.pop()
        for name, kind in tree.entries(folder):
            path = f"{folder}/{name}" if folder else name
            if kind == FOLDER and is_data_folder(name):
                other = visited.setdefault(tree.identity(path), path)
                if other == path:
                    folders.append(path)
                elif _is_within(other, top) or _is_within(top, other):
                    left_out.add(SEEN, path)
                else:
                    raise _same_folder(tree, path, other)
            elif kind == FOLDER:
                left_out.add(SYSTEM_FOLDER, name)
            elif kind in (FILE, DANGLING) and is_image(name):
                images.append(path)
            else:
                _count(name, kind, left_out)
    return images


def count_outside(tree: Tree, splits: Iterable[str], left_out: LeftOut) -> None:
    """Count what lies next to the folders of the splits; they are scanned on their own."""
    used = {split.split("/")[0] for split in splits}
    for name, kind in tree.entries(""):
        if kind == FOLDER and name not in used:
            left_out.add(OUTSIDE_FOLDER if is_data_folder(name) else SYSTEM_FOLDER, name)
        elif kind == FILE and is_image(name):
            left_out.add(OUTSIDE_IMAGE, name)
        elif kind != FOLDER:
            _count(name, kind, left_out)


def make_dangling_error(tree: Tree, path: str) -> DataError:
    """Return the error for a link that leads nowhere in place of a folder."""
    return DataError(
        f"{tree.place(path)} is a link to {tree.target(path)}, which cannot be reached.",
        "Mount or restore what it leads to, or remove the link.",
    )


def _is_within(path: str, folder: str) -> bool:
    return not folder or path == folder or path.startswith(f"{folder}/")


def _same_folder(tree: Tree, path: str, other: str) -> DataError:
    return DataError(
        f"{tree.place(path)} and {tree.place(other)} are the same folder: its images would have two labels.",
        "Remove the link to it.",
    )


def _shorten(name: str) -> str:
    """A name in one line: no control characters, which a terminal would obey, and not endless."""
    text = make_printable(name)
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= _LENGTH else f"{text[:_LENGTH]}..."


def _count(name: str, kind: str, left_out: LeftOut) -> None:
    """Count a name that is neither an image nor a folder."""
    if kind != FILE:
        left_out.add(kind, name)
    elif name.startswith("."):
        left_out.add(HIDDEN_FILE, name)
    else:
        stem, _, suffix = name.rpartition(".")
        left_out.add(NO_IMAGE, f".{suffix.lower()}" if stem else "no suffix")
