"""What a failure looks like: the mistakes of deployment that leave a mark on inputs, logits or labels.

Each function tries a few well-known mistakes and names those that explain what is seen. Nothing here
decides whether a model passes. Shape suffixes: B or N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_export.runtime.metrics import cosine
from dskd_export.validation.intervals import wilson_interval

# A mistake explains an input where undoing it leaves no pixel further off than this, in 1/255.
_SAME_PIXELS = 2.5
# It explains logits where undoing it leaves nearly all images with the right first class.
_SAME_LOGITS = 0.9


def explain_inputs(
    reference_BCHW: NDArray[np.float32],
    candidate_BCHW: NDArray[np.float32],
    mean: Sequence[float],
    std: Sequence[float],
) -> str | None:
    """Why the device's input is not timm's; None where no known mistake explains it.

    Args:
        reference_BCHW: normalised images as the model was trained on them.
        candidate_BCHW: what the device makes of the same images.
        mean: of the normalisation that the model was trained with, of pixels in [0, 1], RGB.
        std: the same.
    """
    mean_C11, std_C11 = (np.asarray(value, dtype=np.float64)[:, None, None] for value in (mean, std))
    pixels_BCHW = reference_BCHW * std_C11 + mean_C11

    def normalised(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        return (pixels - mean_C11) / std_C11

    mistakes: dict[str, NDArray[np.floating[Any]]] = {
        "the channels come in the order BGR, the model was trained on RGB": normalised(pixels_BCHW[:, ::-1]),
        "the input is normalised with mean and std in each other's place": (pixels_BCHW - std_C11) / mean_C11,
        "the input is normalised with mean and std of BGR": (pixels_BCHW - mean_C11[::-1]) / std_C11[::-1],
        "the input is not normalised: its pixels lie in [0, 1]": pixels_BCHW,
        "the input is not normalised: its pixels lie in [0, 255]": 255 * pixels_BCHW,
        "the input is scaled to [-1, 1] in place of its normalisation": 2 * pixels_BCHW - 1,
        "the images are upside down": reference_BCHW[:, :, ::-1],
        "the images are mirrored": reference_BCHW[:, :, :, ::-1],
    }
    with np.errstate(invalid="ignore", over="ignore"):
        for name, expected_BCHW in mistakes.items():
            step = float(np.ptp(expected_BCHW)) / max(float(np.ptp(pixels_BCHW)), 1e-9) / 255
            if np.abs(candidate_BCHW - expected_BCHW).max() <= _SAME_PIXELS * step:
                return name
    return None


def explain_logits(reference_NK: NDArray[Any], candidate_NK: NDArray[Any]) -> str | None:
    """Why a model gives other logits for the same inputs; None where no known mistake explains it.

    Args:
        reference_NK: logits of the model that is right.
        candidate_NK: logits of the other one.
    """
    if not np.isfinite(candidate_NK).all():
        bad = int((~np.isfinite(candidate_NK)).any(axis=1).sum())
        return f"{bad} of {len(candidate_NK)} images give NaN or Inf: values leave the range of the precision"
    a_NK, b_NK = reference_NK.astype(np.float64), candidate_NK.astype(np.float64)
    if len(b_NK) > 1 and not np.ptp(b_NK, axis=0).any() and np.ptp(a_NK, axis=0).any():
        return "the logits are the same for every image"
    if (b_NK >= 0).all() and np.allclose(b_NK.sum(axis=1), 1, atol=1e-2) and not np.allclose(a_NK.sum(axis=1), 1):
        return "the output is probabilities, not logits"
    shift = _class_shift(a_NK, b_NK)
    if shift:
        return (
            f"the classes are shifted by one: what is class k in the reference is class k{shift:+d} here, "
            "for all k"
        )
    length = float((a_NK * a_NK).sum())
    factor = float((a_NK * b_NK).sum()) / length if length else 1.0
    if abs(factor - 1) > 0.05 and cosine(a_NK, b_NK).min() > 0.999:
        return f"the logits are {factor:.3g} times the reference's: a scale at the end of the model is wrong"
    return None


def _class_shift(a_NK: NDArray[np.float64], b_NK: NDArray[np.float64]) -> int:
    """+1 or -1 where all classes but the first or last are another's neighbour; 0 where they are not."""
    if a_NK.shape[1] < 3:
        return 0
    first_N = a_NK.argmax(axis=1)
    for shift in (1, -1):
        back_NK = np.roll(b_NK, -shift, axis=1)
        same = float((back_NK.argmax(axis=1) == first_N).mean())
        if same >= _SAME_LOGITS > float((b_NK.argmax(axis=1) == first_N).mean()):
            return shift
    return 0


def explain_labels(logits_NK: NDArray[Any], labels_N: NDArray[np.integer[Any]]) -> str | None:
    """Whether labels that are shifted by one fit a model far better than those given; None where they do not.

    Better beyond chance (the 95 % Wilson intervals do not overlap) and at least twice as often right.

    Args:
        logits_NK: of a model that is taken to be right.
        labels_N: indices of classes, as the data set says.
    """
    images, classes = logits_NK.shape
    if classes < 3:
        return None
    first_N = logits_NK.argmax(axis=1)
    right = int((first_N == labels_N).sum())
    for shift in (1, -1):
        shifted = int((first_N == (labels_N + shift) % classes).sum())
        if shifted >= 2 * right and wilson_interval(shifted, images).low > wilson_interval(right, images).high:
            return (
                f"the labels are shifted by one: the reference is right on {right} of {images} images, "
                f"and on {shifted} with {shift:+d} added to every label"
            )
    return None


def explain_fields(given: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    """Name each field of a spec that is not what the weights were trained with.

    Args:
        given: field -> value in the bundle.
        expected: field -> value of the weights; the same fields.
    """
    for field, value in expected.items():
        if given[field] == value:
            continue
        if field == "classes":
            yield f"classes: {_first_difference(given[field], value)}"
        elif field == "mean" and (given["mean"], given["std"]) == (expected["std"], value):
            yield f"mean and std are in each other's place: mean {_shown(given['mean'])}, it is {_shown(value)}"
        elif field == "std" and (given["std"], given["mean"]) == (expected["mean"], value):
            continue  # said with the mean
        elif isinstance(value, tuple) and given[field] == value[::-1]:
            yield f"{field} {_shown(given[field])} is in the order BGR, it is {_shown(value)} for RGB"
        else:
            yield f"{field} is {_shown(given[field])}, the weights were trained with {_shown(value)}"


def _first_difference(given: Sequence[str], expected: Sequence[str]) -> str:
    if len(given) != len(expected):
        return f"there are {len(given)}, the weights were trained with {len(expected)}"
    for shift in (1, -1):
        if list(given) == [*expected[-shift:], *expected[:-shift]]:
            return f"they are shifted by {shift:+d}: logit 0 is called {given[0]!r}, it is {expected[0]!r}"
    index = next(index for index, name in enumerate(expected) if given[index] != name)
    return f"logit {index} is called {given[index]!r}, it is {expected[index]!r}"


def _shown(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(_shown(item) for item in value) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)
