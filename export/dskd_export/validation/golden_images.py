"""A bundle's golden images among those that come by: are they prepared here as they were at the export?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dskd_export.bundle.golden import Golden
from dskd_export.documents.validation import Check
from dskd_export.runtime.runner import Array
from dskd_export.validation.gate import check_count

# Of the many images that may be wrong, so many are named.
_NAMED = 3


class GoldenImages:
    """Looks for a bundle's golden images among those that come by.

    Attributes:
        golden: the images.
        labels: golden image that was found -> labels that it has in the data: more than one where the same
            picture is there under several classes, as happens.
    """

    def __init__(self, golden: Golden) -> None:
        self.golden = golden
        self.labels: dict[int, set[int]] = {}
        self._other_input: set[int] = set()
        self._position = {str(digest): index for index, digest in enumerate(golden.image_sha256)}

    def find(self, sha256: Sequence[str], labels_B: NDArray[np.int64], inputs_B: Array) -> None:
        """Look through some images.

        Args:
            sha256: of each image's pixels.
            labels_B: their classes.
            inputs_B: what the device feeds for them.
        """
        for row, digest in enumerate(sha256):
            index = self._position.get(digest)
            if index is None:
                continue
            self.labels.setdefault(index, set()).add(int(labels_B[row]))
            if not np.array_equal(self.golden.input[index], inputs_B[row]):
                self._other_input.add(index)

    def unlike(self) -> list[str]:
        """What differs between the golden images and the same ones in the data, in words."""
        found = [
            f"the input of golden image {i} is not what the spec makes of it" for i in sorted(self._other_input)
        ]
        for index, labels in sorted(self.labels.items()):
            label = int(self.golden.labels[index])
            if label not in labels:
                found.append(f"the label of golden image {index} is {label}, in the data it is {min(labels)}")
        return found


def check_golden_images(found: int, all_of_them: int, unlike: Sequence[str]) -> Check:
    """The golden images that are among the data have the inputs and labels that the bundle says.

    Args:
        found: how many of them are among the data.
        all_of_them: how many there are.
        unlike: what differs, in words.
    """
    if not found:
        return Check(
            name="golden images",
            value=None,
            limit=0.0,
            comparison="<=",
            verdict="NOT JUDGED",
            detail="none of them is among the images",
        )
    check = check_count("golden images", list(unlike[:_NAMED]), f"{found} of {all_of_them} were among the images")
    return check.model_copy(update={"value": float(len(unlike))})
