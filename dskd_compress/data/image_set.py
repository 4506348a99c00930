"""What the rest of the package knows of a data set: numbered images with a label and a name."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import IO, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dskd_export.errors import DataError

# What Pillow's decoders raise on damaged files. A decompression bomb is one of them.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
)


class UnreadableImage(DataError):
    """One image that cannot be decoded; loaders name it, count it and go on."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}.", "Repair or delete the file.")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableImage], tuple[str, str]]:
        return UnreadableImage, (self.name, self.reason)


class ImageSet(Protocol):
    """Labelled images in a fixed order, each within reach by its number."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; `label` is an index into them."""
        ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image:
        """Image `index`, RGB, in its native size.

        Raises:
            UnreadableImage: it cannot be decoded.
        """
        ...

    def label(self, index: int) -> int:
        """Class of image `index`."""
        ...

    def name(self, index: int) -> str:
        """Name for messages, relative to the source, the same on every machine."""
        ...


class StoredSet(ImageSet, Protocol):
    """An image set that can say what it is made of, so that it can be hashed."""

    def stored_bytes(self, index: int) -> int | None:
        """Bytes that `content` gives; None where the contents are not at hand."""
        ...

    def content(self, index: int) -> bytes:
        """Image `index` as it is stored."""
        ...


def decode_rgb(name: str, open_image: Callable[[], Image.Image | IO[bytes]]) -> Image.Image:
    """Decode a whole image to RGB, in the same way as timm's datasets do.

    Args:
        name: for the error.
        open_image: opens the file; the stream is closed afterwards.

    Raises:
        UnreadableImage: truncated, damaged, no image at all, a decompression bomb, or of a pixel
            type that Pillow would clip to white on the way to 8 bits.
    """
    try:
        opened = open_image()
        with opened, opened if isinstance(opened, Image.Image) else Image.open(opened) as image:
            # 16-bit grey and float pixels: convert("RGB") clips them at 255 without a word.
            if image.mode.startswith(("I", "F")):
                raise UnreadableImage(name, f"pixels of type {image.mode}, only 8 bits a channel can be read")
            return image.convert("RGB")
    except DECODE_ERRORS as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            reason = error.strerror or "cannot be opened"
        else:
            # Pillow names the stream object, which says nothing to a person.
            reason = str(error).split("<_io.")[0].rstrip(" '.") or type(error).__name__
        raise UnreadableImage(name, reason) from error


class ArraySet:
    """Images in memory."""

    def __init__(
        self,
        pixels_NHWC: NDArray[np.uint8],
        labels: NDArray[np.int64],
        classes: Sequence[str],
        names: Sequence[str],
    ) -> None:
        """Hold the arrays.

        Args:
            pixels_NHWC: uint8 [N, H, W, 3], or [N, H, W] for grey.
            labels: int64 [N], indices into `classes`.
            classes: class names.
            names: N names for messages.
        """
        self.pixels_NHWC = pixels_NHWC
        self.labels = labels
        self.names = names
        self._classes = tuple(classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self._classes

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        """Image `index`, RGB."""
        return Image.fromarray(self.pixels_NHWC[index]).convert("RGB")

    def label(self, index: int) -> int:
        """Class of image `index`."""
        return int(self.labels[index])

    def name(self, index: int) -> str:
        """Name of image `index`."""
        return self.names[index]

    def stored_bytes(self, index: int) -> int:
        """Bytes of the pixels."""
        return int(self.pixels_NHWC[index].nbytes)

    def content(self, index: int) -> bytes:
        """Shape and pixels."""
        pixels = self.pixels_NHWC[index]
        return bytes(repr(pixels.shape).encode() + pixels.tobytes())


class SubsetSet:
    """Some images of another set, in the order given."""

    def __init__(self, whole: StoredSet, indices: Sequence[int]) -> None:
        self.whole = whole
        self.indices = indices

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the whole set."""
        return self.whole.classes

    def __len__(self) -> int:
        return len(self.indices)

    def image(self, index: int) -> Image.Image:
        """Image `index`, RGB."""
        return self.whole.image(self.indices[index])

    def label(self, index: int) -> int:
        """Class of image `index`."""
        return self.whole.label(self.indices[index])

    def name(self, index: int) -> str:
        """Name of image `index`."""
        return self.whole.name(self.indices[index])

    def stored_bytes(self, index: int) -> int | None:
        """Bytes that `content` gives."""
        return self.whole.stored_bytes(self.indices[index])

    def content(self, index: int) -> bytes:
        """Image `index` as it is stored."""
        return self.whole.content(self.indices[index])
