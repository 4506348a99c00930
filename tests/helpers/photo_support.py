"""Real photos, as files of every kind and size that a model may meet."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

Photo = Image.Image


def photo_paths(folders: list[Path] | None = None) -> list[Path]:
    """The image files of some folders, or scikit-learn's two photographs (640x427)."""
    if not folders:
        import sklearn.datasets

        folders = [Path(sklearn.datasets.__file__).parent / "images"]
    endings = {".jpg", ".jpeg", ".png"}
    return sorted(path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in endings)


def read_photo(path: Path, pixels: int | None = None) -> Photo:
    """One of them as RGB, its longer side shrunk to so many pixels where that is given."""
    with Image.open(path) as image:
        photo = image.convert("RGB")
    if pixels is not None:
        photo.thumbnail((pixels, pixels))
    return photo


def _saved(image: Photo, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def _png(pixels_HWC: NDArray[np.uint16]) -> bytes:
    """A PNG of 16 bits a channel with 1 to 4 channels; Pillow writes only grey ones."""
    height, width, channels = pixels_HWC.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = pixels_HWC.astype(">u2").reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(data, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def _deep(image: Photo, channels: int) -> NDArray[np.uint16]:
    """16 bits of each channel, the lower byte with a value of its own."""
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    pixels_HWC = np.asarray(_with_alpha(image).convert(mode), dtype=np.uint16)
    pixels_HWC = pixels_HWC.reshape(image.height, image.width, channels)
    return pixels_HWC * 256 + (pixels_HWC * 7 + 91) % 256


def _with_alpha(image: Photo) -> Photo:
    """Opaque in the middle, clear at the edges."""
    alpha = Image.radial_gradient("L").resize(image.size)
    rgba = image.copy()
    rgba.putalpha(alpha)
    return rgba


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


# How an image is turned so that EXIF's orientation turns it back.
_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def store_turned(image: Photo, orientation: int, format: str = "PNG", **options: object) -> bytes:
    """The file of a camera that was held so: the pixels turned, and the orientation, 1 to 8, in EXIF."""
    turned = image.transpose(_BACK[orientation]) if orientation in _BACK else image
    return _saved(turned, format, exif=_exif(orientation), **options)


def _palette(image: Photo) -> Photo:
    return image.quantize(200)


def _grey(image: Photo) -> NDArray[np.uint8]:
    return np.asarray(image.convert("L"))


Writer = Callable[[Photo], bytes]
Shaper = Callable[[Photo], Photo]

KINDS: dict[str, Writer] = {
    "JPEG": lambda image: _saved(image, "JPEG", quality=90),
    "JPEG progressive 4:4:4": lambda image: _saved(image, "JPEG", progressive=True, subsampling=0),
    "JPEG grey": lambda image: _saved(image.convert("L"), "JPEG"),
    "JPEG CMYK": lambda image: _saved(image.convert("CMYK"), "JPEG"),
    **{
        f"JPEG EXIF orientation {value}": lambda image, value=value: _saved(image, "JPEG", exif=_exif(value))  # type: ignore[misc]
        for value in range(1, 9)
    },
    "JPEG of several pictures (MPO)": lambda image: _saved(
        image, "MPO", save_all=True, append_images=[image.rotate(180)]
    ),
    "PNG": lambda image: _saved(image, "PNG", compress_level=1),
    "PNG EXIF orientation 6": lambda image: _saved(image, "PNG", compress_level=1, exif=_exif(6)),
    "PNG 1 bit": lambda image: _saved(image.convert("1"), "PNG"),
    "PNG grey (L)": lambda image: _saved(image.convert("L"), "PNG", compress_level=1),
    "PNG grey, one value transparent": lambda image: _saved(image.convert("L"), "PNG", transparency=99),
    "PNG grey and alpha (LA)": lambda image: _saved(_with_alpha(image).convert("LA"), "PNG", compress_level=1),
    "PNG alpha (RGBA)": lambda image: _saved(_with_alpha(image), "PNG", compress_level=1),
    "PNG, one colour transparent": lambda image: _saved(
        image, "PNG", compress_level=1, transparency=image.getpixel((0, 0))
    ),
    "PNG palette": lambda image: _saved(_palette(image), "PNG"),
    "PNG palette, one colour transparent": lambda image: _saved(_palette(image), "PNG", transparency=3),
    "PNG palette, alpha of each colour": lambda image: _saved(
        _palette(image), "PNG", transparency=bytes(range(0, 200, 2))
    ),
    "PNG 16 bit colour": lambda image: _png(_deep(image, 3)),
    "PNG 16 bit colour and alpha": lambda image: _png(_deep(image, 4)),
    "PNG 16 bit grey and alpha": lambda image: _png(_deep(image, 2)),
    "PNG 16 bit grey, values to 255": lambda image: _png(_grey(image).astype(np.uint16)[..., None]),
    "GIF animated": lambda image: _saved(image, "GIF", save_all=True, append_images=[image.rotate(180)]),
    "BMP": lambda image: _saved(image, "BMP"),
    "PPM": lambda image: _saved(image, "PPM"),
    "TIFF, two pages": lambda image: _saved(image, "TIFF", save_all=True, append_images=[image.rotate(180)]),
    "TIFF EXIF orientation 8": lambda image: _saved(image, "TIFF", tiffinfo={0x0112: 8}),
    "TIFF CMYK": lambda image: _saved(image.convert("CMYK"), "TIFF"),
    "TIFF YCbCr": lambda image: _saved(image.convert("YCbCr"), "TIFF"),
    "TIFF 16 bit grey, values to 255": lambda image: _saved(
        Image.fromarray(_grey(image).astype(np.uint16)), "TIFF"
    ),
    "TIFF 32 bit grey, values to 255": lambda image: _saved(image.convert("L").convert("I"), "TIFF"),
    "TIFF float, whole numbers to 255": lambda image: _saved(image.convert("L").convert("F"), "TIFF"),
}
"""What Pillow of every build reads, and timm makes something of."""

_OPTIONAL: dict[str, tuple[str, Writer]] = {
    "WebP": ("webp", lambda image: _saved(image, "WEBP", quality=80)),
    "WebP alpha": ("webp", lambda image: _saved(_with_alpha(image), "WEBP", quality=80)),
    "JPEG 2000": ("jpg_2000", lambda image: _saved(image, "JPEG2000")),
    "TIFF Lab": ("littlecms2", lambda image: _saved(image.convert("LAB"), "TIFF")),
    "AVIF": ("avif", lambda image: _saved(image, "AVIF", speed=10)),
}
KINDS |= {kind: writer for kind, (feature, writer) in _OPTIONAL.items() if features.check(feature)}

CUT_OFF: dict[str, Writer] = {
    "PNG 16 bit grey": lambda image: _png(_deep(image, 1)),
    "TIFF 16 bit grey": lambda image: _saved(Image.fromarray(_deep(image, 1)[..., 0]), "TIFF"),
    "TIFF 16 bit grey, big-endian": lambda image: _saved(
        Image.fromarray(_deep(image, 1)[..., 0].astype(">u2")), "TIFF"
    ),
    "PGM 16 bit": lambda image: _saved(Image.fromarray(_deep(image, 1)[..., 0]), "PPM"),
    "TIFF 32 bit grey": lambda image: _saved(Image.fromarray(_deep(image, 1)[..., 0].astype(np.int32)), "TIFF"),
    "TIFF float from 0 to 1": lambda image: _saved(Image.fromarray(_grey(image) / np.float32(255)), "TIFF"),
    "TIFF float with NaN": lambda image: _saved(
        Image.fromarray(np.where(_grey(image) > 9, _grey(image), np.float32("nan"))), "TIFF"
    ),
}
"""Pixels that Pillow, and timm with it, would cut off on the way to 8 bits."""

SIZES: dict[str, Shaper] = {
    "1x1": lambda image: image.crop((7, 7, 8, 8)),
    "1x101": lambda image: image.resize((1, 101), Image.Resampling.BOX),
    "101x1": lambda image: image.resize((101, 1), Image.Resampling.BOX),
    "2x3": lambda image: image.resize((2, 3), Image.Resampling.BOX),
    "31x29": lambda image: image.resize((31, 29), Image.Resampling.BOX),
    "1777x33": lambda image: image.resize((1777, 33), Image.Resampling.BICUBIC),
    "33x1777": lambda image: image.resize((33, 1777), Image.Resampling.BICUBIC),
    "224x224": lambda image: image.resize((224, 224), Image.Resampling.BICUBIC),
    "333x500": lambda image: image.resize((333, 500), Image.Resampling.BICUBIC),
    "501x375": lambda image: image.resize((501, 375), Image.Resampling.BICUBIC),
    "1201x803": lambda image: image.resize((1201, 803), Image.Resampling.BICUBIC),
}
"""Width x height."""

FILES: dict[str, Writer] = {
    **KINDS,
    **{f"JPEG {name}": lambda image, shape=shape: KINDS["JPEG"](shape(image)) for name, shape in SIZES.items()},  # type: ignore[misc]
}
"""Every kind of file, and a JPEG of every size."""
