"""One process's part of every batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BatchShard:
    """The part of each batch that the process `rank` of `world_size` decodes.

    All processes iterate over the same batches in the same order, so what is trained on does not depend on
    their number.
    """

    rank: int = 0
    world_size: int = 1

    def rows(self, batch_size: int) -> NDArray[np.int64]:
        """List the rows of the batch in this shard, rising; `batch_size` is a multiple of `world_size`.

        A shard of even size is a run of rows and the same run counted from the end of the batch: mixup and
        cutmix pair each image with its mirror in the reversed batch, and so the partner is in the same shard.
        """
        size = batch_size // self.world_size
        if size % 2:
            return np.arange(self.rank * size, (self.rank + 1) * size)
        first = np.arange(self.rank * size // 2, (self.rank + 1) * size // 2)
        return np.concatenate((first, batch_size - 1 - first[::-1]))


WHOLE_BATCH = BatchShard()
