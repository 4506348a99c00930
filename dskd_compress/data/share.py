"""One process's part of every batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Share:
    """Part `index` of `count` equal parts of a batch.

    All processes go through the same batches in the same order, and each decodes its own part: what is
    trained on does not depend on their number.
    """

    index: int = 0
    count: int = 1

    def rows(self, batch_size: int) -> NDArray[np.int64]:
        """Places of the part's images in the batch, rising; `batch_size` is a multiple of `count`.

        A part of even size is a run of places and the same run counted from the end of the batch: mixup and
        cutmix give each image a partner by turning the batch round, and so the partner lies in the same part.
        """
        size = batch_size // self.count
        if size % 2:
            return np.arange(self.index * size, (self.index + 1) * size)
        first = np.arange(self.index * size // 2, (self.index + 1) * size // 2)
        return np.concatenate((first, batch_size - 1 - first[::-1]))


WHOLE = Share()
