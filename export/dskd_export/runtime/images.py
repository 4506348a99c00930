"""Open image files as RGB: the only place where an image is opened, in training and on the device.

What a file becomes is what timm's datasets make of it, `Image.open(file).convert("RGB")`:

- The orientation in EXIF is not applied: pixels stay as they are stored. (But Pillow's reader of TIFF
  applies it itself, and so does the library behind timm's `hfids/` streams.) With `exif="apply"` it is, for
  every format; the image keeps its metadata otherwise, so that it can still be applied later.
- Alpha is dropped, be it a channel or a palette's transparency: the colours beneath it are seen.
- Of several frames or pages the first is taken; colour profiles are ignored.
- CMYK, YCbCr and HSV become RGB by Pillow's formulas, Lab by its ICC profiles (needs LittleCMS).
- 16-bit colour keeps the upper byte of each value, as Pillow's readers do.
- 16-bit and 32-bit grey and float pixels stay as they are where all of them are whole numbers from 0
  to 255. Pillow would cut off all others, mostly to white: those images are refused here.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from dskd_export.errors import DataError
from dskd_export.files.names import make_printable
from dskd_export.runtime.orientation import read_orientation, turn_upright
from dskd_export.spec import ExifMode

_MEND = "Repair or delete the file."
_NAMED = 5
_SEARCH_S = 10.0  # for the other unreadable images, once there are too many
_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
# Whatever file is opened: not a word about this one.
_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class UnreadableImage(DataError):
    """One image that cannot be decoded; loaders name it, count it and continue."""

    def __init__(self, name: str, reason: str, hint: str = _MEND) -> None:
        super().__init__(f"{name}: {reason}.", hint)
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableImage], tuple[str, str, str | None]]:
        return UnreadableImage, (self.name, self.reason, self.hint)


def name_unreadable(names: Sequence[str]) -> str:
    """Name images that were left out, the first five of them, in one sentence without a full stop."""
    images = "1 image" if len(names) == 1 else f"{len(names)} images"
    return f"left out {images} that cannot be read: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"


def list_unreadable(
    count: int, read: Callable[[int], object], known: Iterable[UnreadableImage] = ()
) -> tuple[list[UnreadableImage], bool]:
    """List the unreadable images of a set after the first one was met, so that all are repaired at once.

    Each is decoded: a header that can be read says nothing about the pixels of a JPEG.

    Args:
        count: images of the set.
        read: decodes image number `index`.
        known: met before.

    Returns:
        Those known and those found, and whether all images were tried: the search ends after 10 seconds.
    """
    found = {failure.name: failure for failure in known}
    end_s = time.monotonic() + _SEARCH_S
    for index in range(count):
        if time.monotonic() > end_s:
            return list(found.values()), False
        try:
            read(index)
        except UnreadableImage as failure:
            found.setdefault(failure.name, failure)
        except (OSError, MemoryError):  # of the machine: those found are reported
            return list(found.values()), False
    return list(found.values()), True


def describe_unreadable(failures: Sequence[UnreadableImage]) -> str:
    """Name unreadable images with their reasons, the first five of them, without a full stop."""
    shown = "; ".join(f"{failure.name} ({failure.reason})" for failure in failures[:_NAMED])
    return f"{shown}{'; ...' if len(failures) > _NAMED else ''}"


def suggest_tolerance(unreadable: int, total: int) -> str:
    """Suggest the setting that tolerates so many unreadable images of a set, as a round share."""
    share = next((one for one in _SHARES if unreadable <= one * total), 1)
    return f"--set data.max_unreadable={share:g}"


def open_image(
    source: str | os.PathLike[str] | bytes | IO[bytes], name: str | None = None, *, exif: ExifMode = "ignore"
) -> Image.Image:
    """Decode a whole image to RGB, in the same way as timm's datasets do.

    Args:
        source: a path, the bytes of a file, or a binary stream, which is left open.
        name: for the error; None: the path.
        exif: apply: turn it upright. `preprocess_batch` does that as well where the spec says so.

    Raises:
        UnreadableImage: missing, no plain file, truncated, damaged, no image at all, without pixels, a
            decompression bomb (more than twice `PIL.Image.MAX_IMAGE_PIXELS`), PostScript, or of pixels that
            8 bits cannot hold.
    """
    is_path = isinstance(source, str | os.PathLike)
    name = name or (os.fspath(source) if is_path else "The image")  # type: ignore[arg-type]
    with convert_image_errors(name):
        if is_path:
            _check_plain(source, name)  # type: ignore[arg-type]
            with open(source, "rb") as stream:  # type: ignore[arg-type] # noqa: PTH123
                return _decode(stream, name, exif)
        return _decode(io.BytesIO(source) if isinstance(source, bytes) else source, name, exif)  # type: ignore[arg-type]


def to_rgb(image: Image.Image, name: str = "The image", *, exif: ExifMode = "ignore") -> Image.Image:
    """Return an image of any mode as RGB; one that is RGB already is returned itself, decoded.

    Args:
        name: for the error.
        exif: apply: turn it upright; an image that was turned before is left as it is.

    Raises:
        UnreadableImage: as `open_image`, or of a mode that Pillow cannot convert.
    """
    with convert_image_errors(name):
        image.load()
        if 0 in image.size:
            raise UnreadableImage(name, f"{image.width}x{image.height} pixels")
        rgb = image if image.mode == "RGB" else _convert(image, name)
        return turn_upright(rgb, read_orientation(image)) if exif == "apply" else rgb


def _convert(image: Image.Image, name: str) -> Image.Image:
    if isinstance(image.info.get("transparency"), bytes):
        image = image.copy()
        del image.info["transparency"]  # Pillow would warn that it is lost, which is meant
    rgb = image.convert("RGB")
    # A picture that 8 bits hold is the same afterwards; NaN is never the same.
    if image.mode.startswith(("I", "F")) and not np.array_equal(np.asarray(image), np.asarray(rgb)[..., 0]):
        raise UnreadableImage(
            name,
            f"pixels of type {image.mode} that are not all whole numbers from 0 to 255",
            "Scale it to 8 bits a channel.",
        )
    return rgb


@contextmanager
def convert_image_errors(name: str) -> Iterator[None]:
    """Turn whatever reading or decoding an image raises into an `UnreadableImage` of that name."""
    try:
        yield
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise what they like; all of it is about this file
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            raise
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        else:
            # Pillow names the stream object, which says nothing to a person.
            reason = str(error).split("<_io.")[0].split("\n")[0].rstrip(" '.") or type(error).__name__
        raise UnreadableImage(name, reason) from error


def _check_plain(path: str | os.PathLike[str], name: str) -> None:
    """Refuse what would wait or act when it is opened, and name the target of a link that leads nowhere."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  # pathlib takes longer than a small image
    except FileNotFoundError:
        if not Path(path).is_symlink():
            raise
        target = make_printable(str(Path(path).readlink()))
        raise UnreadableImage(name, f"a link to {target}, which cannot be reached") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a folder says that it is one
        raise UnreadableImage(name, "not a plain file")


def _decode(stream: IO[bytes], name: str, exif: ExifMode) -> Image.Image:
    with Image.open(stream) as image:
        if image.format == "EPS":
            raise UnreadableImage(name, "PostScript, a program that Pillow would have Ghostscript run")
        rgb = to_rgb(image, name, exif=exif)
        # A plain image: that of a file holds on to the stream.
        plain = rgb.copy() if rgb is image else rgb
        if image.format == "TIFF":
            plain.info.pop("xmp", None)  # Pillow has turned it; nothing may turn it again
        return plain


def pixel_sha256(image: Image.Image) -> str:
    """Hash the decoded pixels with sha256, whatever the name or the lossless format of the file."""
    return hashlib.sha256(image.tobytes()).hexdigest()
