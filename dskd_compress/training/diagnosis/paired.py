"""Whether another way of reading the same images is really better, and not by luck."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Right = npt.NDArray[np.bool_]

LEAST_IMAGES = 128
LEAST_GAIN = 0.1  # of accuracy: less than that is not worth stopping a run for
FEWEST_IMAGES = 48
WORTH_A_WARNING = 0.03  # of accuracy
LEAST_Z = 4.0  # about 1 in 30,000 by chance


def probably_better(before_N: Right, after_N: Right, tried: int) -> bool:
    """McNemar's exact test, one-sided, of a way that was chosen from several; enough for a warning.

    Args:
        tried: how many ways were tried; the level of 1 % is divided among them (Bonferroni).
    """
    gained, lost = int((after_N & ~before_N).sum()), int((before_N & ~after_N).sum())
    if len(before_N) < FEWEST_IMAGES or gained - lost < WORTH_A_WARNING * len(before_N):
        return False
    from scipy import stats

    return bool(stats.binomtest(gained, gained + lost, alternative="greater").pvalue < 0.01 / tried)


def clearly_better(before_N: Right, after_N: Right) -> bool:
    """McNemar's test (Psychometrika 12, 1947) of right answers on the same N images, with a least gain.

    z = (b - c) / sqrt(b + c), with b images right only after and c right only before.
    """
    gained, lost = int((after_N & ~before_N).sum()), int((before_N & ~after_N).sum())
    if gained - lost < LEAST_GAIN * len(before_N) or gained == 0:
        return False
    return bool((gained - lost) / (gained + lost) ** 0.5 >= LEAST_Z)
