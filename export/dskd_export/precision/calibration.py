"""Calibration images: what the ranges of a precision are measured on.

Shape suffixes: N images, and the model's own input behind it (CHW or HWC).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_export.errors import DataError


@dataclass(frozen=True)
class Calibration:
    """Images, as the model reads them.

    Attributes:
        input_N: one row an image: float32 after normalisation, or uint8 where the graph normalises.
        labels_N: class of each, int64.
        image_sha256: of each decoded image, in the same order.
        seed: that chose them.
    """

    input_N: NDArray[Any]
    labels_N: NDArray[np.int64]
    image_sha256: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        if not len(self.input_N):
            raise DataError("No calibration images.", "Set export.calibration.images to 1 or more.")
        if not len(self.input_N) == len(self.labels_N) == len(self.image_sha256):
            raise ValueError("images, labels and hashes are not of the same number")

    def __len__(self) -> int:
        return len(self.input_N)

    def first(self, images: int) -> Calibration:
        """The first images of the draw, which is as spread over the classes as the whole."""
        return Calibration(self.input_N[:images], self.labels_N[:images], self.image_sha256[:images], self.seed)

    def check_disjoint(self, evaluation_sha256: Iterable[str]) -> None:
        """Refuse images that the model is evaluated on.

        Raises:
            DataError: an image is in both sets; says how many.
        """
        both = set(self.image_sha256) & set(evaluation_sha256)
        if both:
            raise DataError(
                f"{len(both)} of {len(self)} calibration images are also evaluation images "
                f"(the first has sha256 {min(both)[:12]}): the accuracy would be too high.",
                "Keep training and validation images apart, or set another export.calibration.seed.",
            )
