"""Load the teacher of a run.

`load_teacher` returns a model with the classes of the data, `load_own_teacher` one with its own classifier.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from dskd_compress.config import DataSection, Recipe, TeacherSection
from dskd_compress.data import DataSets, Preprocessing, resolve_preprocessing
from dskd_compress.label_space import ProbedModel
from dskd_compress.models import count_classes, create_model
from dskd_compress.run_folder import DISTILL, TEACHER_PROBE, RunFolder
from dskd_compress.teachers.classes import (
    find_class_names,
    list_output_classes,
    map_classes,
    refuse_other_classes,
)
from dskd_compress.teachers.probe import load_probe
from dskd_compress.weights import WeightsInfo, check_classes, find_info, load_trained
from dskd_export.errors import DataError, ModelError


@dataclass(frozen=True)
class TeacherModel:
    """A teacher and its preprocessing.

    Attributes:
        outputs: the classes of the weights behind each output; None: those of the data.
    """

    model: nn.Module
    format: Preprocessing
    weights: str  # source of the weights, in words
    origin: str | None = None  # source of the preprocessing, in words; None: it is known to be right
    outputs: list[list[str]] | None = None


def load_teacher(recipe: Recipe, folder: RunFolder, sets: DataSets) -> TeacherModel:
    """Load the teacher that teaches: its outputs are the classes of the data.

    Raises:
        DataError: the teacher or its fitted classifier is missing, or the teacher has other classes than the data.
        RecipeError: teacher.class_map does not fit its classes.
        ModelError: its weights are missing or damaged.
    """
    teacher = load_own_teacher(recipe, folder, sets)
    if recipe.teacher.probe is None:
        return teacher
    path = folder.require(TEACHER_PROBE, DISTILL)
    classifier, facts = load_probe(path)
    if classifier.out_features != len(sets.classes):
        raise DataError(
            f"{path} has {classifier.out_features} classes, the data {len(sets.classes)}.",
            "Fit it again: dskd-compress distill",
        )
    model = ProbedModel(teacher.model, classifier).eval()
    weights = f"{teacher.weights}, classifier fitted on {facts.images} images"
    return replace(teacher, model=model, weights=weights, outputs=None)


def load_own_teacher(recipe: Recipe, folder: RunFolder, sets: DataSets) -> TeacherModel:
    """Load the teacher with its own classifier, its classes mapped if the recipe has a class map.

    Raises as `load_teacher`. A teacher whose classifier is still to be fitted may have any classes, or none.
    """
    section = recipe.teacher
    if section.train is not None:
        path = folder.require("teacher.safetensors", "train")
        model, trained = load_trained(path)
        check_classes(trained.classes, sets, path, "train")
        return TeacherModel(model, trained.preprocessing, describe_trained(section))
    check_has_weights(section)
    checkpoint = section.checkpoint
    info = None if checkpoint is None else find_info(checkpoint)
    size = recipe.data.input_size if info is None else info.input_size[1]
    if isinstance(own_size := section.kwargs.get("img_size"), int):
        size = own_size  # a teacher of fixed size gets its own, whatever the student gets
    classes = _count_weights_classes(section, info, sets)
    model = create_model(section, num_classes=classes, input_size=size).eval()
    source = "pretrained" if checkpoint is None else f"checkpoint {checkpoint.name}"
    format, origin = find_own_format(section, model, size)
    if section.class_map is not None:
        own = int(model.num_classes)  # type: ignore[arg-type]
        model = map_classes(model, section, info, sets)
        source = f"{source}, {model.class_map.members} of {own} classes mapped"
    elif section.probe is None:
        refuse_other_classes(recipe, folder, sets.classes, find_class_names(model, section, info))
        if info is not None and checkpoint is not None:
            check_classes(info.classes, sets, checkpoint, "train")
    return TeacherModel(model, format, source, origin, list_output_classes(model, section, info))


def check_has_weights(section: TeacherSection) -> None:
    """Refuse a teacher without trained weights.

    Raises:
        ModelError: its weights would be random.
    """
    if not section.pretrained and section.checkpoint is None:
        raise ModelError(
            f"teacher.name: {section.name} has no weights: pretrained is false, checkpoint is not set.",
            "Give weights with --teacher-checkpoint FILE, or train all of it: --set teacher.fit=all",
        )


def find_own_format(
    section: TeacherSection, model: nn.Module, size: int | None
) -> tuple[Preprocessing, str | None]:
    """Find the preprocessing of a teacher's training, and its source in words; None: it is known to be right.

    It is kept whatever the recipe sets for the student: that of the weights' own metadata, else timm's.
    """
    info = None if section.checkpoint is None else find_info(section.checkpoint)
    format = resolve_preprocessing(DataSection(input_size=size), model) if info is None else info.preprocessing
    if section.mean is None and section.std is None:
        return format, None if info is not None else f"timm's for {section.name}"
    format = replace(format, mean=section.mean or format.mean, std=section.std or format.std)
    return format, "teacher.mean and teacher.std"


def describe_trained(section: TeacherSection) -> str:
    """Describe the source of the weights of a teacher that this run trained."""
    if section.chosen_fit == "head":
        start = "pretrained" if section.checkpoint is None else f"checkpoint {section.checkpoint.name}"
        return f"{start}, classifier trained by this run"
    return "trained by this run"


def _count_weights_classes(section: TeacherSection, info: WeightsInfo | None, sets: DataSets) -> int | None:
    """Count the classes to build a teacher for; None: timm's own."""
    if section.checkpoint is None:
        return None
    if info is not None:
        return len(info.classes)
    counted = count_classes(section.name, section.checkpoint)
    if counted is None and section.class_map is None and section.probe is None:
        return len(sets.classes)  # a checkpoint of the user has the classes of the data
    return counted
