"""Data sets that are arrays: scikit-learn's digits and .npz files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dskd_compress.data.folders import find_val_split
from dskd_compress.data.image_set import ArraySet, StoredSet
from dskd_export.errors import DataError, require
from dskd_export.files.npz import read_npz

DIGITS_PIXELS = 32
_MOST_CLASSES = 1 << 20
Arrays = Mapping[str, NDArray[np.generic]]


def open_digits() -> ArraySet:
    """scikit-learn's 1,797 handwritten digits as 32-px RGB.

    The originals are 8x8 with values 0..16; they are scaled to 0..255 and enlarged by Pillow's bicubic.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    bunch = require("sklearn.datasets", "train").load_digits()
    grey_N88 = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    size = (DIGITS_PIXELS, DIGITS_PIXELS)
    pixels_NHWC = np.stack(
        [
            np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC).convert("RGB"))
            for grey in grey_N88
        ]
    )
    labels = bunch.target.astype(np.int64)
    names = [f"digit-{index:04d}" for index in range(len(labels))]
    return ArraySet(pixels_NHWC, labels, [str(digit) for digit in range(10)], names)


def open_npz_file(path: Path, train_split: str, val_split: str | None) -> tuple[StoredSet, StoredSet | None]:
    """Open one file with `x` and `y`, or with `x_train`, `y_train`, `x_val`, `y_val`; `classes` is optional.

    Images are uint8 [N, H, W], [N, H, W, 1] or [N, H, W, 3], labels integers [N] or [N, 1].

    Raises:
        DataError: an array is missing or of another type or shape.
    """
    arrays = read_npz(path)
    there = f"It has: {', '.join(sorted(arrays)) or 'nothing'}."
    splits = sorted(key[2:] for key in arrays if key.startswith("x_"))
    if train_split in splits:
        val = find_val_split(splits, val_split, str(path), there)
        names = [train_split] if val is None else [train_split, val]
        return _pair([_images(arrays, f"_{name}", path, f"{name}/") for name in names], [arrays], path)
    if "x" in arrays and train_split == "train" and val_split is None:
        return _pair([_images(arrays, "", path, "")], [arrays], path)
    raise DataError(
        f"{path} holds neither 'x' nor 'x_{train_split}'. {there}",
        "Save it with numpy.savez(FILE, x=images, y=labels, classes=names), or correct data.train_split.",
    )


def open_npz_folder(root: Path, train_split: str, val_split: str | None) -> tuple[StoredSet, StoredSet | None]:
    """Open a folder with `train.npz` and perhaps `val.npz`, each with `x`, `y`, perhaps `classes`.

    Raises:
        DataError: as `open_npz_file`.
    """
    splits = sorted(path.stem for path in root.glob("*.npz"))
    val = find_val_split(splits, val_split, str(root), f"It has: {', '.join(f'{name}.npz' for name in splits)}.")
    names = [train_split] if val is None else [train_split, val]
    for name in names:
        if not (root / f"{name}.npz").is_file():
            raise DataError(f"{root / f'{name}.npz'} is no file, or a link that leads nowhere.", "Save it again.")
    files = [read_npz(root / f"{name}.npz") for name in names]
    parts = [
        _images(arrays, "", root / f"{name}.npz", f"{name}/") for name, arrays in zip(names, files, strict=True)
    ]
    return _pair(parts, files, root)


_Part = tuple[NDArray[np.uint8], NDArray[np.int64], str]


def _images(arrays: Arrays, suffix: str, path: Path, prefix: str) -> _Part:
    """Check one pair of arrays: pixels [N, H, W] or [N, H, W, 3], labels [N], and the prefix of names."""
    x_key, y_key = f"x{suffix}", f"y{suffix}"
    for key in (x_key, y_key):
        if key not in arrays:
            raise DataError(
                f"{path} has no array '{key}': {'labels' if key == y_key else 'images'} are missing.",
                f"It has: {', '.join(sorted(arrays)) or 'nothing'}.",
            )
    x, y = arrays[x_key], arrays[y_key]
    if x.dtype != np.uint8:
        raise DataError(f"{path}: '{x_key}' is {x.dtype}.", "Save images as uint8, 0 to 255.")
    if x.ndim == 4 and x.shape[3] == 1:
        x = x[..., 0]
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[3] != 3):
        raise DataError(
            f"{path}: '{x_key}' has the shape {list(x.shape)}.",
            "Save images as [N, H, W] or [N, H, W, 3]; transpose [N, 3, H, W] first.",
        )
    if len(x) and 0 in x.shape:
        raise DataError(
            f"{path}: '{x_key}' has the shape {list(x.shape)}: its images have no pixels.", "Save it again."
        )
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise DataError(
            f"{path}: '{y_key}' is {y.dtype} of shape {list(y.shape)}.",
            "Save labels as integers, one an image.",
        )
    if len(x) != len(y):
        raise DataError(f"{path}: {len(x)} images but {len(y)} labels.", "Save one label for every image.")
    if len(y) and int(y.min()) < 0:
        raise DataError(f"{path}: '{y_key}' holds {int(y.min())}.", "Number the classes from 0.")
    if len(y) and int(y.max()) >= _MOST_CLASSES:  # before any of it is counted
        raise DataError(
            f"{path}: '{y_key}' holds the label {int(y.max())}; at most {_MOST_CLASSES:,} classes are taken.",
            "Number the classes 0, 1, 2, ... without gaps.",
        )
    if 0 in x.shape[1:]:
        raise DataError(f"{path}: the images of '{x_key}' have no pixels.", "Save images of at least 1x1 pixel.")
    return x, y.astype(np.int64), prefix  # type: ignore[return-value]


def _pair(parts: list[_Part], files: Sequence[Arrays], path: Path) -> tuple[StoredSet, StoredSet | None]:
    """Give every part the class names; without names the classes are numbers up to the largest label."""
    listed = [tuple(str(name) for name in arrays["classes"].ravel()) for arrays in files if "classes" in arrays]
    largest = max((int(labels.max()) for _, labels, _ in parts if len(labels)), default=-1)
    default = listed[0] if listed else tuple(str(label) for label in range(largest + 1))
    sets: list[StoredSet] = []
    for position, (pixels, labels, prefix) in enumerate(parts):
        classes = listed[position] if position < len(listed) else default
        if len(labels) and int(labels.max()) >= len(classes):
            raise DataError(
                f"{path}: label {int(labels.max())} but only {len(classes)} names in 'classes'.",
                "Save one name for every class.",
            )
        names = [f"{prefix}{index}" for index in range(len(labels))]
        sets.append(ArraySet(pixels, labels, classes, names))
    return sets[0], sets[1] if len(sets) > 1 else None
