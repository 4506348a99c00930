"""How a teacher gets its images, checked against the usual normalisations.

Shape suffixes: B images of a batch, N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from dskd_compress.data import DataSets, Preprocessing, StreamSet, eval_transform, iter_images
from dskd_compress.methods import Pair
from dskd_compress.training.diagnosis.symptom import Symptom
from dskd_compress.training.diagnosis.teacher_input import (
    USUAL,
    Formats,
    find_right_answers,
    is_same_norm,
    normalisation_symptom,
)

_MOST_IMAGES = 256
_FIRST_IMAGES = 96  # a normalisation that gains nothing on these is not tried on all
_BATCH = 32


@torch.no_grad()
def compare_normalisations(sets: DataSets, pair: Pair, device: torch.device) -> Symptom | None:
    """Try the usual normalisations on labelled validation images; draws nothing from any random generator.

    Args:
        sets: with the labelled images. A stream is not tried, as its first images may be of one class.

    Returns:
        The fault, if the teacher is clearly better with another normalisation than its own.
    """
    if isinstance(sets.val, StreamSet):
        return None
    own = (pair.teacher_format.mean, pair.teacher_format.std)
    live = {name: norm for name, norm in USUAL.items() if not is_same_norm(norm, own)}
    formats = Formats((pair.student_format.mean, pair.student_format.std), own)
    size = pair.adapter().size
    right: dict[str, list[np.ndarray]] = {name: [] for name in ("", *live)}
    seen = 0
    for images_BCHW, labels_B in _read_batches(sets, pair.student_format):
        images, labels = images_BCHW.to(device), labels_B.to(device)
        for name, answers_B in find_right_answers(
            pair.teacher, images, labels, formats, size, {"": own, **live}
        ).items():
            right[name].append(answers_B)
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
    return normalisation_symptom(given_N, others)


def _read_batches(sets: DataSets, format: Preprocessing) -> Iterator[tuple[Tensor, Tensor]]:
    """Read the first validation images in the student's preprocessing, one of each class before the next."""
    transform = eval_transform(format)
    images: list[Tensor] = []
    labels: list[int] = []
    assert not isinstance(sets.val, StreamSet)
    for image, label, _ in iter_images(sets.val, _MOST_IMAGES, max_unreadable=sets.max_unreadable):
        images.append(transform(image))
        labels.append(label)
        if len(images) == _BATCH:
            yield torch.stack(images), torch.tensor(labels)
            images, labels = [], []
    if images:
        yield torch.stack(images), torch.tensor(labels)
