"""Accuracy of a teacher on the validation images; runs that share a cache folder measure it once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from dskd_compress.config import Recipe
from dskd_compress.data import Preprocessing
from dskd_compress.models import TeacherInput
from dskd_compress.run_folder import RunFolder
from dskd_compress.teachers.cache.disk import locate_cache
from dskd_compress.teachers.cache.key import describe_adapter, read_versions
from dskd_export.documents.base import Accuracy, read_document
from dskd_export.errors import DataError
from dskd_export.files.atomic import write_atomic
from dskd_export.files.json_text import digest


def measure_teacher_accuracy(
    recipe: Recipe,
    folder: RunFolder,
    adapter: TeacherInput,
    format: Preprocessing,
    *,
    data_sha256: str,
    teacher_sha256: str,
    device: torch.device,
    measure: Callable[[], Accuracy],
) -> Accuracy:
    """Measure the teacher's accuracy on the validation images; with a cache, only once."""
    if not recipe.teacher.cache.enabled:
        return measure()
    made_of = {
        "teacher": {
            "model": recipe.teacher.name,
            "kwargs": recipe.teacher.kwargs,
            "weights_sha256": teacher_sha256,
        },
        "teacher_input": describe_adapter(adapter),
        "images": {"data_sha256": data_sha256, "preprocessing": dataclasses.asdict(format)},
        "computed": {"precision": "fp32", "device": device.type, "versions": read_versions()},
    }
    return recall_accuracy(locate_cache(recipe, folder), made_of, measure)


def recall_accuracy(place: Path, made_of: Mapping[str, Any], measure: Callable[[], Accuracy]) -> Accuracy:
    """Read the accuracy, or measure and keep it.

    Args:
        made_of: all that the accuracy depends on, as JSON values; each value has a file.
        measure: called where the file is missing or damaged.
    """
    path = place / f"accuracy-{digest(made_of)[:32]}.json"
    try:
        return read_document(path, Accuracy)
    except DataError:
        pass  # not measured yet, or damaged: measured again
    accuracy = measure()
    place.mkdir(parents=True, exist_ok=True)
    write_atomic(path, accuracy.model_dump_json())
    return accuracy
