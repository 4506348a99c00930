"""What the rest of the package knows of a data set: numbered images with a label and a name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dskd_export.runtime.images import to_rgb
from dskd_export.runtime.orientation import UPRIGHT


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

    def has_metadata(self) -> bool:
        """Whether images may carry EXIF."""
        ...

    def orientation(self, index: int) -> int:
        """Orientation of image `index` in its EXIF, 1 to 8, see `read_orientation`; 1 is upright."""
        ...


class LabelledSet:
    """Base of the sets that hold one label for each image."""

    classes: tuple[str, ...]
    labels: NDArray[np.int64]  # int64 [N], indices into `classes`

    def __len__(self) -> int:
        return len(self.labels)

    def label(self, index: int) -> int:
        """Return the class of image `index`."""
        return int(self.labels[index])


class ArraySet(LabelledSet):
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
        """
        self.pixels_NHWC, self.labels, self.names = pixels_NHWC, labels, names
        self.classes = tuple(classes)

    def image(self, index: int) -> Image.Image:
        """Image `index`, RGB."""
        return Image.fromarray(self.pixels_NHWC[index]).convert("RGB")

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

    def has_metadata(self) -> bool:
        """Arrays have none."""
        return False

    def orientation(self, index: int) -> int:
        """Upright."""
        return UPRIGHT


class SubsetSet:
    """Some images of another set, in the order given."""

    def __init__(self, whole: StoredSet, indices: Sequence[int]) -> None:
        self.whole, self.indices, self.classes = whole, indices, whole.classes

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

    def has_metadata(self) -> bool:
        """Whether images may carry EXIF."""
        return self.whole.has_metadata()

    def orientation(self, index: int) -> int:
        """Orientation of image `index` in its EXIF."""
        return self.whole.orientation(self.indices[index])


class UprightSet(SubsetSet):
    """All images of another set, turned upright by their EXIF."""

    def __init__(self, whole: StoredSet) -> None:
        super().__init__(whole, range(len(whole)))

    def image(self, index: int) -> Image.Image:
        """Image `index`, RGB, upright."""
        return to_rgb(self.whole.image(index), self.name(index), exif="apply")
