"""Names in data sources: which files are images, and the order of classes."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
VAL_NAMES = ("val", "validation", "test")


def natural_key(name: str) -> tuple[list[int | str], str]:
    """Sort key of class folders, the same order as timm's: numbers by value, letter case ignored.

    A class map that timm made for the same folders therefore fits; equal keys fall back to the name.
    """
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if position % 2 else part for position, part in enumerate(parts)], name


def is_image(name: str) -> bool:
    """Whether a file name is that of an image; hidden files are none."""
    path = PurePosixPath(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def is_hidden(name: str) -> bool:
    """Whether a folder is one that tools leave behind and no class."""
    return name.startswith(".") or name == "__MACOSX"
