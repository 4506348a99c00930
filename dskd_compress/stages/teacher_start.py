"""How a run starts from a teacher whose classifier has other classes than the data."""

from __future__ import annotations

from rich.markup import escape

from dskd_compress.config import Recipe, TeacherProbeSection, TeacherSection
from dskd_compress.console import Output
from dskd_compress.data import DataSets
from dskd_compress.models import count_classes
from dskd_compress.timm_import import import_timm
from dskd_compress.weights import find_info


def with_probe_where_needed(recipe: Recipe, sets: DataSets, output: Output) -> Recipe:
    """Fit a classifier on the features of a ready teacher that has another number of classes than the data.

    A recipe that says itself how its teacher gets the classes (train, class_map, probe) stays as it is. On few
    images the frozen features teach better than a teacher that was trained on them, and cost one pass.

    Raises:
        CheckpointError: the checkpoint cannot be read.
    """
    teacher = recipe.teacher
    if teacher.train is not None or teacher.class_map is not None or teacher.probe is not None:
        return recipe
    classes = _classes(teacher)
    if classes is None or classes == len(sets.classes):
        return recipe
    output.print(
        escape(
            f"Teacher {teacher.name}: {classes} classes in its weights, {len(sets.classes)} in the data. "
            "A classifier is fitted on its features (teacher.probe). To train it: --set teacher.train.epochs=30"
        )
    )
    probed = teacher.model_copy(update={"probe": TeacherProbeSection()})
    return recipe.model_copy(update={"teacher": probed})


def _classes(teacher: TeacherSection) -> int | None:
    """Outputs of the classifier in a teacher's weights; None where that cannot be known from here."""
    path = teacher.checkpoint
    if path is not None:
        if not path.is_file():  # who loads it says so; the stages that do not load it need no teacher
            return None
        info = find_info(path)
        return count_classes(teacher.name, path) if info is None else len(info.classes)
    if not teacher.pretrained or ":" in teacher.name or "num_classes" in teacher.kwargs:
        return None
    config = import_timm().models.get_pretrained_cfg(teacher.name, allow_unregistered=True)
    return None if config is None else config.num_classes
