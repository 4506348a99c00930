"""How a teacher gets its images, checked against the usual normalisations.

Shape suffixes: B images of a batch, N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dskd_compress.config import TeacherProbeSection
from dskd_compress.data import DataSets, ImageSet, Preprocessing, StreamSet, eval_transform, iter_images
from dskd_compress.label_space import ProbedModel, fit_linear_probe
from dskd_compress.methods import Pair
from dskd_compress.models import TeacherInput
from dskd_compress.training.diagnosis.symptom import Symptom
from dskd_compress.training.diagnosis.teacher_input import (
    USUAL,
    Formats,
    find_right_answers,
    is_same_norm,
    normalisation_symptom,
)

_MOST_IMAGES = 256
_FIT_IMAGES = 64  # for a classifier in each normalisation, and at least
_FIT_PER_CLASS = 4
_FIRST_IMAGES = 96  # a normalisation that gains nothing on these is not tried on all
_BATCH = 32


@torch.no_grad()
def compare_normalisations(sets: DataSets, pair: Pair, device: torch.device) -> Symptom | None:
    """Try the usual normalisations on labelled validation images; draws nothing from any random generator.

    Args:
        sets: with the labelled images. A stream is not tried, as its first images may be of one class.
        pair: a teacher with a fitted classifier gets one for each normalisation, fitted on some training images:
            its own was fitted to the normalisation in question.

    Returns:
        The fault, if the teacher is clearly better with another normalisation than its own.
    """
    fits = isinstance(pair.teacher, ProbedModel)
    if isinstance(sets.val, StreamSet) or (fits and isinstance(sets.train, StreamSet)):
        return None
    if fits and _FIT_PER_CLASS * len(sets.classes) > _MOST_IMAGES:
        return None
    own = (pair.teacher_format.mean, pair.teacher_format.std)
    # CLIP's is close to ImageNet's: a classifier that is fitted anew would hide the difference.
    tried = {name: norm for name, norm in USUAL.items() if not (fits and name == "CLIP's")}
    live = {name: norm for name, norm in tried.items() if not is_same_norm(norm, own)}
    formats = Formats((pair.student_format.mean, pair.student_format.std), own)
    size = pair.adapter().size
    right: dict[str, list[np.ndarray]] = {name: [] for name in ("", *live)}
    teachers, fitted_on = dict.fromkeys(right, pair.teacher), 0
    if isinstance(pair.teacher, ProbedModel):
        adapters = {name: TeacherInput(formats.student, norm, size) for name, norm in {"": own, **live}.items()}
        teachers, fitted_on = _fit_each(sets, pair, pair.teacher, adapters, device)
        if not fitted_on:
            return None
    seen = 0
    for images_BCHW, labels_B in _read_batches(sets, sets.val, pair.student_format, _MOST_IMAGES):
        images, labels = images_BCHW.to(device), labels_B.to(device)
        for name, norm in {"": own, **live}.items():
            answers = find_right_answers(teachers[name], images, labels, formats, size, {name: norm})
            right[name].append(answers[name])
        seen += len(labels)
        if seen >= _FIRST_IMAGES:
            given = int(np.concatenate(right[""]).sum())
            live = {name: norm for name, norm in live.items() if int(np.concatenate(right[name]).sum()) > given}
            if not live:
                return None
    if not seen:
        return None
    given_N = np.concatenate(right.pop(""))
    others = {name: np.concatenate(parts) for name, parts in right.items() if name in live}
    return normalisation_symptom(given_N, others, fitted_on)


def _fit_each(
    sets: DataSets, pair: Pair, teacher: ProbedModel, adapters: Mapping[str, TeacherInput], device: torch.device
) -> tuple[dict[str, nn.Module], int]:
    """Fit a classifier on the features of the same training images in each normalisation, and count the images.

    Returns:
        By name; none of 0 images where a class has no readable one among them.
    """
    assert not isinstance(sets.train, StreamSet)
    features: dict[str, list[np.ndarray]] = {name: [] for name in adapters}
    labels: list[np.ndarray] = []
    most = max(_FIT_IMAGES, _FIT_PER_CLASS * len(sets.classes))
    for images_BCHW, labels_B in _read_batches(sets, sets.train, pair.student_format, most):
        images = images_BCHW.to(device)
        for name, adapt in adapters.items():
            adapted: Any = teacher.forward_features(adapt.to(device)(images))
            features[name].append(teacher.forward_head(adapted, pre_logits=True).float().cpu().numpy())
        labels.append(labels_B.numpy())
    labels_N, section = np.concatenate(labels), TeacherProbeSection()
    fitted: dict[str, nn.Module] = {}
    if len(set(labels_N.tolist())) < len(sets.classes):
        return fitted, 0
    for name, parts in features.items():
        probe = fit_linear_probe(
            np.concatenate(parts),
            labels_N,
            len(sets.classes),
            l2=section.l2,
            max_iterations=section.max_iterations,
        )
        fitted[name] = ProbedModel(teacher.model, probe.classifier.to(device)).eval()
    return fitted, len(labels_N)


def _read_batches(
    sets: DataSets, source: ImageSet, format: Preprocessing, most: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Read the first images in the student's preprocessing, one of each class before the next."""
    transform = eval_transform(format)
    images: list[Tensor] = []
    labels: list[int] = []
    for image, label, _ in iter_images(source, most, max_unreadable=sets.max_unreadable):
        images.append(transform(image))
        labels.append(label)
        if len(images) == _BATCH:
            yield torch.stack(images), torch.tensor(labels)
            images, labels = [], []
    if images:
        yield torch.stack(images), torch.tensor(labels)
