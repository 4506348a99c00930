"""How good the teacher is on the validation images, measured once for all runs that share a folder of caches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dskd_export.documents.base import Accuracy, read_document
from dskd_export.errors import DataError
from dskd_export.files.atomic import write_atomic
from dskd_export.files.digest import digest


def remembered_accuracy(place: Path, made_of: Mapping[str, Any], measure: Callable[[], Accuracy]) -> Accuracy:
    """Read the accuracy, or measure it and keep it.

    Args:
        place: folder of caches.
        made_of: all that the accuracy depends on, as JSON values; another value is another file.
        measure: called where it is not known yet.
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
