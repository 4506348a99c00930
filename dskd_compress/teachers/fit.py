"""How a teacher gets the classes of the data (`teacher.fit`): decided here, where the recipe leaves it open."""

from __future__ import annotations

import torch
from rich.markup import escape

from dskd_compress.checkpoints import count_weight_classes, read_weights
from dskd_compress.config import ModelSection, Recipe, TeacherFit, TeacherProbeSection, TeacherSection
from dskd_compress.console import Output
from dskd_compress.data import DataSets
from dskd_compress.model_names import check_name
from dskd_compress.models import create_model
from dskd_compress.pretrained import find_pretrained_cfg
from dskd_compress.weights import find_info
from dskd_export.errors import ModelError


def decide_fit(recipe: Recipe, sets: DataSets, output: Output, *, train: str = "") -> Recipe:
    """Set teacher.fit where the recipe leaves it open: probe if the teacher has other classes than the data.

    On few images the frozen features teach better than a teacher that was trained on them (arXiv 2402.11305),
    and cost one pass. A teacher whose classes only loading can show stays open.

    Args:
        train: the command that trains the teacher's classifier in place of that, where this one cannot.

    Raises:
        CheckpointError: the checkpoint is damaged.
        ModelError: timm has no such model.
    """
    teacher = recipe.teacher
    if teacher.chosen_fit is not None or not recipe.has_teacher:
        return recipe
    check_name(teacher.name, "teacher")
    classes = _find_own_classes(teacher)
    if classes is None:
        return recipe
    wanted = tuple(sets.classes)
    if classes in (wanted, len(wanted)):
        return _with_fit(recipe, "none")
    own = classes if isinstance(classes, int) else len(classes)
    other = "other " if own == len(wanted) else ""  # known by name
    found = f"{own} {other}classes in its weights" if own else "no classifier in its weights"
    instead = (
        f"{train} (all of it: teacher.fit=all)" if train else "--set teacher.fit=head or --set teacher.fit=all"
    )
    output.print(
        escape(
            f"Teacher {teacher.name}: {found}, {len(wanted)} classes in the data. Fitting a linear classifier on "
            f"its features (teacher.fit probe). To train it: {instead}"
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
    weights = read_weights(path)
    count = count_weight_classes(teacher.name, weights)
    if count == 0 and f"{getattr(find_pretrained_cfg(teacher.name), 'first_conv', '')}.weight" not in weights:
        return None  # of another model or layout; loading it reports that
    return count


def _count_pretrained(teacher: TeacherSection) -> int | None:
    if ":" not in teacher.name:
        config = find_pretrained_cfg(teacher.name)
        return None if config is None else int(config.num_classes)
    section = ModelSection(name=teacher.name, pretrained=False)  # known once its configuration is fetched
    try:
        with torch.random.fork_rng(devices=[]):
            model = create_model(section, num_classes=None, input_size=None)
    except ModelError:  # loading it reports what is wrong
        return None
    return int(model.num_classes)  # type: ignore[arg-type]
