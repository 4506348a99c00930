"""Count the images that a verdict needs, before anything is run. Pure.

No number of images is enough for a model that loses too much. These are the fewest that can show one that does
not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from dskd_export.settings import BudgetSettings
from dskd_export.validation.intervals import images_for_drop, images_for_share, round_up

STUDENT = "student"

TYPICAL_DIFFERING = {STUDENT: 0.1, "int8": 0.02, "fp8": 0.02, "bf16": 0.01}
"""Shares of images of which one model is right and the other wrong, for `typical`; as many are lost as gained.

An assumption for planning: once validated, the measured shares take its place.
"""

Limit = Literal["student_drop", "top1_drop", "agreement"]


@dataclass(frozen=True)
class ImagesNeeded:
    """The images that one limit of the budget needs for a PASS.

    Attributes:
        of: `student`, or a precision.
        limit: key of the budget.
        value: of the limit, a fraction.
        at_best: where no image is lost; None: no number of images would do.
        typical: where as many images are lost as gained, and so many differ as `TYPICAL_DIFFERING` says; None: no
            number of images would do.
    """

    of: str
    limit: Limit
    value: float
    at_best: int | None
    typical: int | None

    @property
    def key(self) -> str:
        """Key of the recipe that sets it: `budget.student_drop`, `budget.fp16.top1_drop`."""
        return f"budget.{self.limit}" if self.of == STUDENT else f"budget.{self.of}.{self.limit}"

    @property
    def words(self) -> str:
        """For people: `student_drop`, `fp16's top1_drop`."""
        return self.limit if self.of == STUDENT else f"{self.of}'s {self.limit}"

    def can_be_shown(self, images: int) -> bool:
        """Whether so many images can show it at all."""
        return self.at_best is not None and images >= self.at_best


def images_needed(
    budget: BudgetSettings, precisions: Iterable[str], *, teacher: bool = True, device: str | None = None
) -> list[ImagesNeeded]:
    """Count the images that each limit needs which will be judged by the end of an interval.

    At no image lost the ends are closed forms: z²(1/d - 1) images for a drop of at most d (Tango 1998) and
    z² a/(1 - a) for an agreement of at least a (Wilson 1927), z = 1.96. The counts come from what judges.

    Args:
        budget: of the recipe.
        precisions: models that will be judged.
        teacher: whether the student is compared with one.
        device: name of its folder in results/, for limits of single devices.
    """
    return list(_iter_needed(budget, precisions, teacher, device))


def describe_images(needed: Sequence[ImagesNeeded], images: int) -> str:
    """Say in one sentence which limits so many images cannot show, and how many those need; empty: none is set."""
    if not needed:
        return ""
    hopeless = [one.words for one in needed if one.at_best is None]
    short = [
        f"{one.words} (needs {round_up(one.at_best):,})"
        for one in needed
        if one.at_best is not None and images < one.at_best
    ]
    if short:
        text = f"{images:,} validation images are too few to show {', '.join(short)}"
    else:
        text = f"{images:,} validation images can show the limits of the budget where no image is lost"
        tight = [
            f"{one.words} typically needs {round_up(one.typical):,}"
            for one in needed
            if one.at_best is not None and one.typical is not None and images < one.typical
        ]
        text += "".join(f"; {words}" for words in tight)
    if hopeless:
        text += f"; no number of images can show {', '.join(hopeless)}"
    return f"{text}."


def _iter_needed(
    budget: BudgetSettings, precisions: Iterable[str], teacher: bool, device: str | None
) -> Iterator[ImagesNeeded]:
    if teacher and budget.student_drop is not None:
        yield _of_drop(STUDENT, "student_drop", budget.student_drop)
    for precision in dict.fromkeys(precisions):
        limits = budget.of(precision, device)
        if limits.top1_drop is not None:
            yield _of_drop(precision, "top1_drop", limits.top1_drop)
        if limits.agreement is not None:
            differing = TYPICAL_DIFFERING.get(precision, 0.0)
            typical = images_for_share(1 - differing, 1, limits.agreement)
            yield ImagesNeeded(
                precision, "agreement", limits.agreement, images_for_share(1, 1, limits.agreement), typical
            )


def _of_drop(of: str, limit: Literal["student_drop", "top1_drop"], value: float) -> ImagesNeeded:
    half = TYPICAL_DIFFERING.get(of, 0.0) / 2
    return ImagesNeeded(of, limit, value, images_for_drop(0, 0, 1, value), images_for_drop(half, half, 1, value))
