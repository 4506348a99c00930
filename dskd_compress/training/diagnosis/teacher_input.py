"""Whether the teacher gets its images as it was trained to read them.

Shape suffixes: B and N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dskd_compress.models import Norm, TeacherInput
from dskd_compress.timm_import import import_timm
from dskd_compress.training.diagnosis.paired import LEAST_IMAGES, Right, clearly_better, probably_better
from dskd_compress.training.diagnosis.symptom import Symptom

import_timm()

from timm.data import constants  # noqa: E402

CANDIDATES: dict[str, Norm] = {
    "ImageNet's": (constants.IMAGENET_DEFAULT_MEAN, constants.IMAGENET_DEFAULT_STD),
    "Inception's": (constants.IMAGENET_INCEPTION_MEAN, constants.IMAGENET_INCEPTION_STD),
    "CLIP's": (constants.OPENAI_CLIP_MEAN, constants.OPENAI_CLIP_STD),
    "CIFAR's": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "none, pixels in [0, 1]": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "none, pixels in [0, 255]": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
}
"""Normalisations that models in use were trained with: name -> mean and std of pixels in [0, 1]."""

USUAL = {name: CANDIDATES[name] for name in ("ImageNet's", "Inception's", "CLIP's", "none, pixels in [0, 1]")}
"""Those that are tried before the training."""

_SAME = 1e-2  # of the normalised values
_MOST_OUTSIDE = 0.2  # random erasing with noise leaves some pixels outside of [0, 1]
_WEAK = 0.5  # of the known accuracy; augmentation costs a good teacher much less


@dataclass(frozen=True)
class Formats:
    """Normalisation of the training images as the student gets them, and as the teacher wants them."""

    student: Norm
    teacher: Norm


def measure_outside_pixels(images_BCHW: Tensor, norm: Norm) -> float:
    """Measure the share of the values that are no pixels in [0, 1] once the normalisation is undone."""
    mean, std = (torch.tensor(values, device=images_BCHW.device).view(1, -1, 1, 1) for values in norm)
    pixels_BCHW = images_BCHW.float() * std + mean
    return float(((pixels_BCHW < -0.05) | (pixels_BCHW > 1.05)).float().mean())


def pixels_symptom(outside: float) -> Symptom | None:
    """Training images that are not what their normalisation says."""
    if outside <= _MOST_OUTSIDE:
        return None
    return Symptom(
        "teacher_input",
        "data",
        f"{outside:.0%} of the training images' values are no pixels once data.mean and data.std are undone.",
        "The images were normalised twice, or not at all, so neither model gets what it expects.",
        "Give images of 0 to 255, or leave the normalisation to data.mean and data.std alone.",
    )


def adapter_symptom(given_BCHW: Tensor, wanted_BCHW: Tensor) -> Symptom | None:
    """What reaches the teacher is not the image in the teacher's own normalisation.

    Args:
        given_BCHW: what reaches it.
        wanted_BCHW: the same images, re-normalised from their pixels.
    """
    same = given_BCHW.shape == wanted_BCHW.shape
    if same and float((given_BCHW - wanted_BCHW).abs().max()) <= _SAME * float(wanted_BCHW.abs().max()):
        return None
    given, wanted = (
        f"mean {float(x.mean()):.2f}, std {float(x.std()):.2f}, {x.shape[2]}x{x.shape[3]} pixels"
        for x in (given_BCHW, wanted_BCHW)
    )
    return Symptom(
        "teacher_input",
        "normalisation",
        f"The images that reach the teacher have {given}; in its own normalisation they would have {wanted}.",
        "The teacher is shown other images than it was trained on, and what it says of them is worth less.",
        "Re-normalise from the student's mean and std to the teacher's: dskd_compress.models.TeacherInput.",
    )


@torch.no_grad()
def find_right_answers(
    teacher: nn.Module,
    images_BCHW: Tensor,
    labels_B: Tensor,
    formats: Formats,
    size: tuple[int, int] | None,
    norms: Mapping[str, Norm] = CANDIDATES,
) -> dict[str, Right]:
    """Find the images that the teacher gets right in each normalisation; it must be in eval mode."""
    found = {}
    for name, norm in norms.items():
        adapt = TeacherInput(formats.student, norm, size).to(images_BCHW.device)
        found[name] = (teacher(adapt(images_BCHW)).argmax(dim=1) == labels_B).cpu().numpy()
    return found


def is_same_norm(one: Norm, other: Norm) -> bool:
    """Check whether two normalisations are the same but for rounding."""
    return bool(np.allclose(one, other, atol=1e-3))


def _cure(name: str) -> str:
    means, stds = (np.round(values, 5).tolist() for values in CANDIDATES[name])
    return f"Add to the command: --set 'teacher.mean={means}' --set 'teacher.std={stds}'"


def normalisation_symptom(given_N: Right, others: Mapping[str, Right], fitted_on: int = 0) -> Symptom | None:
    """A teacher that is better with another normalisation on labelled images that are not augmented.

    Args:
        given_N: which images it gets right as it is given them.
        others: the same for other normalisations, by name in `CANDIDATES`.
        fitted_on: images that a classifier was fitted on in each normalisation; 0: the teacher has its own.
    """
    better = [name for name, right_N in others.items() if probably_better(given_N, right_N, len(USUAL))]
    if not better:
        return None
    best = max(better, key=lambda name: float(others[name].mean()))
    images = len(given_N)
    how = f" (classifiers fitted on {fitted_on} images each)" if fitted_on else ""
    return Symptom(
        "teacher_input",
        "normalisation",
        f"Of {images} validation images the teacher is right on {int(given_N.sum())} as it is fed; "
        f"with another normalisation ({best}) it is right on {int(others[best].sum())}{how}.",
        "The teacher was trained with another normalisation than its images are given in.",
        _cure(best),
    )


def accuracy_symptom(
    given_N: Right, others: Mapping[str, Right], statistics: tuple[float, float], known: float | None
) -> Symptom | None:
    """A teacher that is clearly better with another normalisation, or far below what it is known to reach.

    Args:
        statistics: mean and std of the values that reach it.
        known: its accuracy after its own training; None where nobody knows.
    """
    if len(given_N) < LEAST_IMAGES:
        return None
    accuracy, (mean, std) = float(given_N.mean()), statistics
    seen = (
        f"The teacher is right on {accuracy:.0%} of the training images, which reach it with mean {mean:.2f} and "
    )
    better = [name for name, right_N in others.items() if clearly_better(given_N, right_N)]
    if better:
        best = max(better, key=lambda name: float(others[name].mean()))
        return Symptom(
            "teacher_input",
            "normalisation",
            f"{seen}std {std:.2f}; with another normalisation ({best}) it is right on {others[best].mean():.0%}.",
            "The teacher was trained with another normalisation than its images are given in.",
            _cure(best),
        )
    if known is not None and accuracy < _WEAK * known:
        return Symptom(
            "teacher_input",
            "accuracy",
            f"{seen}std {std:.2f}; after its own training it was right on {known:.0%}.",
            "The teacher does not get its images as in its training: normalisation, size or crop differ.",
            "Compare data.mean, data.std, data.input_size and data.interpolation with those of its training, and "
            "weaken data.augment.",
        )
    return None
