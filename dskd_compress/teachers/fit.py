"""How a teacher gets the classes of the data (`teacher.fit`): decided here, where the recipe leaves it open."""

from __future__ import annotations

from typing import Any

import torch
from rich.markup import escape

from dskd_compress.config import ModelSection, Recipe, TeacherFit, TeacherProbeSection, TeacherSection
from dskd_compress.console import Output
from dskd_compress.data import DataSets
from dskd_compress.models import count_classes, create_model, read_weights
from dskd_compress.timm_import import import_timm
from dskd_compress.weights import find_info
from dskd_export.errors import ModelError


def decide_fit(recipe: Recipe, sets: DataSets, output: Output) -> Recipe:
    """Set teacher.fit where the recipe leaves it open: probe if the teacher has other classes than the data.

    On few images the frozen features teach better than a teacher that was trained on them (arXiv 2402.11305),
    and cost one pass. A teacher whose classes only loading can show stays open.

    Raises:
        CheckpointError: the checkpoint is damaged.
    """
    teacher = recipe.teacher
    if teacher.chosen_fit is not None:
        return recipe
    classes = _find_own_classes(teacher)
    if classes is None:
        return recipe
    wanted = tuple(sets.classes)
    if classes in (wanted, len(wanted)):
        return _with_fit(recipe, "none")
    own = classes if isinstance(classes, int) else len(classes)
    other = "other " if own == len(wanted) else ""  # known by name
    found = f"{own} {other}classes in its weights" if own else "no classifier in its weights"
    output.print(
        escape(
            f"Teacher {teacher.name}: {found}, {len(wanted)} classes in the data. Fitting a linear classifier on "
            "its features (teacher.fit probe). To train it: --set teacher.fit=head or --set teacher.fit=all"
        )
    )
    return _with_fit(recipe, "probe")


def _with_fit(recipe: Recipe, fit: TeacherFit) -> Recipe:
    settings = {"fit": fit, "probe": TeacherProbeSection()} if fit == "probe" else {"fit": fit}
    return recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update=settings)})


def _find_own_classes(teacher: TeacherSection) -> tuple[str, ...] | int | None:
    """Find names or number of the classes of a teacher's weights, 0 without a classifier; None: unknown."""
    path = teacher.checkpoint
    if path is None:
        return _count_pretrained(teacher) if teacher.pretrained else None
    if not path.is_file():  # reported by the stages that load it; the others need no teacher
        return None
    info = find_info(path)
    if info is not None:
        return info.classes
    count = count_classes(teacher.name, path)
    if count == 0 and f"{getattr(_find_config(teacher.name), 'first_conv', '')}.weight" not in read_weights(path):
        return None  # of another model or layout; loading it reports that
    return count


def _count_pretrained(teacher: TeacherSection) -> int | None:
    if ":" not in teacher.name:
        config = _find_config(teacher.name)
        return None if config is None else int(config.num_classes)
    section = ModelSection(name=teacher.name, pretrained=False)  # known once its configuration is fetched
    try:
        with torch.random.fork_rng(devices=[]):
            model = create_model(section, num_classes=None, input_size=None)
    except ModelError:  # loading it reports what is wrong
        return None
    return int(model.num_classes)  # type: ignore[arg-type]


def _find_config(name: str) -> Any:
    """Find timm's configuration of an architecture's weights; None: unknown name or tag."""
    try:
        return import_timm().models.get_pretrained_cfg(name, allow_unregistered=True)
    except RuntimeError:
        return None
