"""Whether another way of reading the same images is really better, and not by luck."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Right = npt.NDArray[np.bool_]

LEAST_IMAGES = 128
LEAST_GAIN = 0.1  # of accuracy: less than that is not worth stopping a run for
LEAST_Z = 4.0  # about 1 in 30,000 by chance


def clearly_better(before_N: Right, after_N: Right) -> bool:
    """McNemar's test (Psychometrika 12, 1947) of right answers on the same N images, with a least gain.

    z = (b - c) / sqrt(b + c), with b images right only after and c right only before.
    """
    gained, lost = int((after_N & ~before_N).sum()), int((before_N & ~after_N).sum())
    if gained - lost < LEAST_GAIN * len(before_N) or gained == 0:
        return False
    return bool((gained - lost) / (gained + lost) ** 0.5 >= LEAST_Z)
