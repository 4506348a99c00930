"""Whether the teacher's outputs mean the classes of the labels, in their order.

A teacher of another class order is confident and wrong in a way that a permutation mends. The permutation
is found on one half of the images (linear assignment on the confusion matrix) and proved on the other.

Shape suffixes: N images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dskd_compress.label_space import class_map_override
from dskd_compress.training.diagnosis.paired import LEAST_GAIN, LEAST_IMAGES, clearly_better
from dskd_compress.training.diagnosis.symptom import Symptom

Ints = npt.NDArray[np.int64]

MOST_CLASSES = 2000  # a confusion matrix of more is large, and its rows are empty after 100 steps
_SHOWN = 5


def find_permutation(labels_N: Ints, predicted_N: Ints, classes: int) -> Ints:
    """The class that each output of the teacher means: the assignment with the most right answers.

    Returns:
        K class indices, a permutation. Where the images say nothing, an output means its own class if that
        is left over.
    """
    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (predicted_N, labels_N), 1.0)
    # Less than any image: it only decides between assignments that are equally right.
    confusion += np.eye(classes) / (2 * classes)
    from scipy.optimize import linear_sum_assignment  # half a second that a check before a run does not need

    _, meaning = linear_sum_assignment(confusion, maximize=True)
    return np.asarray(meaning, dtype=np.int64)


def class_order_symptom(
    labels_N: Ints,
    predicted_N: Ints,
    confidence: float,
    names: Sequence[str],
    outputs: Sequence[Sequence[str]] | None = None,
    as_option: Callable[[Mapping[str, str]], str] = class_map_override,
) -> Symptom | None:
    """A teacher whose answers become right when its outputs are put into another order.

    Args:
        confidence: mean probability of that class.
        names: of the K classes.
        outputs: the teacher's own classes behind each of its K outputs, as `teacher.class_map` spells them;
            None: their indices.
        as_option: a class map -> the option that sets it.
    """
    classes, images = len(names), len(labels_N)
    if images < LEAST_IMAGES or classes < 2 or classes > MOST_CLASSES:
        return None
    meaning = find_permutation(labels_N[::2], predicted_N[::2], classes)
    labels, predicted = labels_N[1::2], predicted_N[1::2]
    before, after = predicted == labels, meaning[predicted] == labels
    commonest = np.bincount(labels, minlength=classes).max() / len(labels)
    # A teacher that says one class for everything can be "mended" to saying the commonest one.
    if not clearly_better(before, after) or after.mean() < commonest + LEAST_GAIN:
        return None
    meaning = find_permutation(labels_N, predicted_N, classes)
    moved = [f"{k} is {meaning[k]} ({names[meaning[k]]})" for k in range(classes) if meaning[k] != k]
    shown = ", ".join(moved[:_SHOWN]) + (f" and {len(moved) - _SHOWN} more" if len(moved) > _SHOWN else "")
    spelled = outputs if outputs is not None else [[str(k)] for k in range(classes)]
    mapping = {own: names[meaning[k]] for k in range(classes) for own in spelled[k]}
    return Symptom(
        "class_order",
        None,
        f"The teacher is right on {before.mean():.0%} of the training images, {confidence:.0%} sure of itself; "
        f"with its outputs in another order it is right on {after.mean():.0%}. Its output {shown}.",
        "The teacher was trained with its classes in another order than the labels: it teaches the wrong classes.",
        f"Add to the command: {as_option(mapping)}",
    )
