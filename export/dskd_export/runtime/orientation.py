"""The orientation that a camera noted in EXIF (or XMP): read it, and turn an image upright.

Values are those of EXIF 2.32, tag 0x0112: 1 is upright; 3, 6 and 8 are rotated; 2, 4, 5 and 7 are mirrored.
"""

from __future__ import annotations

import os
from typing import IO

from PIL import ExifTags, Image

UPRIGHT = 1

# As in PIL.ImageOps.exif_transpose, which also writes the remaining tags again and fails on some of them.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Where Pillow keeps metadata; an image that was converted or copied still has them.
_METADATA = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
_TURNED_BY_PILLOW = "TIFF"


def read_orientation(image: Image.Image) -> int:
    """Read the orientation of an image, 1 to 8; damaged metadata and values without a meaning count as upright.

    Pixels are not decoded, unless it is a PNG whose only metadata are XMP.
    """
    if image.format == _TURNED_BY_PILLOW or not any(name in image.info for name in _METADATA):
        return UPRIGHT
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception:  # Pillow's reader raises what it likes on damaged metadata; the pixels are sound
        return UPRIGHT
    return value if isinstance(value, int) and value in _TURNS else UPRIGHT


def read_stored_orientation(source: str | os.PathLike[str] | IO[bytes]) -> int:
    """Read the orientation of an encoded image from its headers; what cannot be opened counts as upright.

    The loaders name what cannot be opened.
    """
    try:
        with Image.open(source) as image:
            return read_orientation(image)
    except Exception:  # as in `read_orientation`
        return UPRIGHT


def is_notable(turned: int, images: int) -> bool:
    """Decide whether so many images that are not upright deserve a warning: more than 1 %."""
    return turned > 0.01 * images


def count_turned(turned: int, images: int, what: str = "images") -> str:
    """Count images that are not upright, as the beginning of a warning."""
    return f"{turned} of {images} {what} ({100 * turned / images:.0f} %) carry a rotation in EXIF"


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image upright; one that is upright already is returned itself.

    Args:
        image: decoded.
        orientation: from `read_orientation`.

    Returns:
        An image without the metadata, so that nothing turns it again.
    """
    turn = _TURNS.get(orientation)
    if turn is None:
        return image
    upright = image.transpose(turn)
    for name in _METADATA:
        upright.info.pop(name, None)
    return upright
