"""From the recipe's `data` section to a training and a validation set."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from dskd_compress.config import DataSection
from dskd_compress.data.arrays import open_digits, open_npz_file, open_npz_folder
from dskd_compress.data.folders import open_folder
from dskd_compress.data.hfds import open_hfds
from dskd_compress.data.image_set import StoredSet, UprightSet
from dskd_compress.data.splits import limit_per_class, split_set
from dskd_compress.data.streams import StreamSet, open_streams
from dskd_compress.data.tars import open_tar
from dskd_export.documents.base import DataFacts
from dskd_export.errors import DataError
from dskd_export.files.names import check_class_names
from dskd_export.runtime.folder_tree import kind_of
from dskd_export.runtime.image_scan import LeftOut
from dskd_export.spec import ExifMode

Images: TypeAlias = StoredSet | StreamSet


# Above this the contents take longer to read than a person wants to wait before a run.
CONTENT_LIMIT_BYTES = 1 << 30


def fingerprint(
    sets: Mapping[str, StoredSet], limit_bytes: int = CONTENT_LIMIT_BYTES
) -> tuple[str, Literal["content", "listing"]]:
    """Hash image sets: split, class, name and size of every image, and its contents where that is cheap.

    Neither the folder in which the data lie nor the files' dates enter.

    Args:
        limit_bytes: contents are hashed up to this size in total.

    Returns:
        sha256 in hex, and whether it covers the contents or only the listing.
    """
    with_content = _total_bytes(sets, limit_bytes) <= limit_bytes
    digest = hashlib.sha256()
    for split, images in sets.items():
        digest.update("\0".join((split, str(len(images)), *images.classes)).encode() + b"\n")
        for index in range(len(images)):
            fields = [images.name(index), str(images.label(index)), str(images.stored_bytes(index))]
            if with_content:
                fields.append(hashlib.sha256(images.content(index)).hexdigest())
            digest.update("\0".join(fields).encode() + b"\n")
    return digest.hexdigest(), "content" if with_content else "listing"


def _total_bytes(sets: Mapping[str, StoredSet], limit_bytes: int) -> int:
    """Size of all contents; counting ends where it passes the limit or a size is unknown."""
    total = 0
    for images in sets.values():
        for index in range(len(images)):
            size = images.stored_bytes(index)
            if size is None:
                return limit_bytes + 1
            total += size
            if total > limit_bytes:
                return total
    return total


@dataclass(frozen=True)
class DataSets:
    """Training and validation images of one source."""

    source: str
    train: Images
    val: Images
    max_unreadable: float = DataSection().max_unreadable
    left_out: tuple[str, ...] = ()
    exif: ExifMode = "ignore"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels; `check_data` proves that both sets agree."""
        return self.train.classes

    def facts(self, skipped: Iterable[str] = ()) -> DataFacts:
        """Describe the images: counts, classes, and a hash that is the same on every machine."""
        sha256, sha256_of = self._sha256()
        if self.exif == "apply":  # other pixels: nothing that was computed from those as stored fits
            sha256 = hashlib.sha256(f"{sha256}\0exif=apply".encode()).hexdigest()
        return DataFacts(
            source=self.source,
            sha256=sha256,
            sha256_of=sha256_of,
            train_images=self.train.length if isinstance(self.train, StreamSet) else len(self.train),
            val_images=self.val.length if isinstance(self.val, StreamSet) else len(self.val),
            classes=list(self.classes),
            skipped=sorted(set(skipped)),
            left_out=list(self.left_out),
        )

    def _sha256(self) -> tuple[str, Literal["content", "listing"]]:
        if isinstance(self.train, StreamSet) or isinstance(self.val, StreamSet):
            # A stream's images cannot be listed without reading it all; its names and counts can.
            parts = [part for part in (self.train, self.val) if isinstance(part, StreamSet)]
            listing = [(part.split, part.classes, part.length) for part in parts]
            return hashlib.sha256(repr(listing).encode()).hexdigest(), "listing"
        return fingerprint({"train": self.train, "val": self.val})


def open_data(section: DataSection, seed: int) -> DataSets:
    """Open the source of a recipe.

    Where the source has no validation split, `section.val_fraction` of every class is held out by
    `section.split_seed`; the training seed does not change it.

    Raises:
        DataError: the source is not there, or its layout or its labels are not usable.
        EnvironmentProblem: a library that the source needs is not installed.
    """
    source, train_split, val_split = section.source, section.train_split, section.val_split
    prefix = source.partition("/")[0].lower() if "/" in source else ""
    train: StoredSet
    val: StoredSet | None = None
    left_out = LeftOut()
    if prefix in ("wds", "tfds", "hfids"):
        rest = source.partition("/")[2]
        if prefix == "wds" and ":" not in rest and not Path(rest).is_dir():
            raise _missing(Path(rest))
        if section.train_per_class is not None:
            raise DataError(
                f"data.train_per_class: {source} is read from the front, so nothing can be drawn from it.",
                "Leave data.train_per_class out, or use a folder, .npz or .tar.",
            )
        streams = open_streams(f"{prefix}/{rest}", train_split, val_split, section.exif)
        check_class_names(streams[0].classes, source)
        return DataSets(source, *streams, max_unreadable=section.max_unreadable, exif=section.exif)
    if prefix == "hfds":
        train, val = open_hfds(f"hfds/{source.partition('/')[2]}", train_split, val_split)
    elif source == "digits":
        if val_split is not None:
            raise DataError(
                f"digits has no split '{val_split}'.",
                "Leave data.val_split out; data.val_fraction is held out.",
            )
        train = open_digits()
    else:
        path = Path(source).expanduser()
        try:
            train, val = _open_path(path, train_split, val_split, left_out)
        except PermissionError as error:
            raise DataError(f"{error.filename}: {error.strerror}.", "Make it readable for this user.") from error
    for images in (train, val):
        if images is not None:
            check_class_names(images.classes, source)
    if section.exif == "apply":
        train, val = UprightSet(train), None if val is None else UprightSet(val)
    if val is None:
        train, val = split_set(train, section.val_fraction, section.split_seed)
    if section.train_per_class is not None:
        train = limit_per_class(train, section.train_per_class, section.split_seed)
    return DataSets(source, train, val, section.max_unreadable, tuple(left_out.lines()), section.exif)


def _open_path(
    path: Path, train_split: str, val_split: str | None, left_out: LeftOut
) -> tuple[StoredSet, StoredSet | None]:
    if path.is_dir():
        if (path / f"{train_split}.npz").is_file():
            return open_npz_folder(path, train_split, val_split)
        return open_folder(path, train_split, val_split, left_out)
    if path.is_file():
        if path.suffix.lower() == ".npz":
            return open_npz_file(path, train_split, val_split)
        if path.suffix.lower() == ".tar":
            return open_tar(path, train_split, val_split, left_out)
        raise DataError(
            f"{path}: a file that is neither .npz nor .tar.",
            "Unpack it and name the folder, or pack it with `tar -cf`.",
        )
    if os.path.lexists(path):
        raise DataError(
            f"data.source: {path} is a {kind_of(path)}.", "Set data.source to a folder, a .npz or a .tar."
        )
    raise _missing(path)


def _missing(path: Path) -> DataError:
    """Name the part of the path that is not there and what lies next to it."""
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        path, parent = parent, parent.parent
    names = sorted(entry.name for entry in parent.iterdir()) if parent.is_dir() else []
    candidates = [*names, "digits"] if parent == Path() else names
    close = difflib.get_close_matches(path.name, candidates, n=1, cutoff=0.5)
    hint = (
        f"Did you mean '{'digits' if close == ['digits'] else parent / close[0]}'?"
        if close
        else ("Set data.source to a folder, a .npz or .tar file, digits, or hfds/NAME, wds/PATH, tfds/NAME.")
    )
    return DataError(f"data.source: '{path}' does not exist.", hint)
