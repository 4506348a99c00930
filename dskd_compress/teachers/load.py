"""Load the teacher of a run.

`load_teacher` returns a model with the classes of the data, `load_own_teacher` one with its own classifier.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from dskd_compress.checkpoints import WeightsShape, find_shape, read_checkpoint
from dskd_compress.config import DataSection, Recipe, TeacherSection
from dskd_compress.data import DataSets, Preprocessing, resolve_preprocessing
from dskd_compress.label_space import ProbedModel
from dskd_compress.models import create_model
from dskd_compress.recipe import recipe_as_options
from dskd_compress.run_folder import DISTILL, TEACHER_PROBE, RunFolder
from dskd_compress.teachers.classes import (
    find_class_names,
    list_output_classes,
    map_classes,
    refuse_other_classes,
)
from dskd_compress.teachers.probe import load_probe
from dskd_compress.teachers.stated_input import StatedInput, find_stated_input
from dskd_compress.weights import WeightsInfo, check_classes, find_info, load_trained
from dskd_export.errors import DataError, ModelError


@dataclass(frozen=True)
class TeacherModel:
    """A teacher and its preprocessing.

    Attributes:
        outputs: the classes of the weights behind each output; None: those of the data.
        usual_px: side of the images that timm's weights of this model were trained on; None: it does not matter.
    """

    model: nn.Module
    format: Preprocessing
    weights: str  # source of the weights, in words
    origin: str | None = None  # source of the preprocessing, in words; None: it is known to be right
    outputs: list[list[str]] | None = None
    own_size: bool = False  # fed images of the size of its weights, not of the student's
    notes: tuple[str, ...] = ()  # what comes with the weights and is not used
    usual_px: int | None = None


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
        path = folder.weights("teacher")
        if not path.exists():
            raise DataError(f"{path} is missing.", f"Make it first: {_make_train_command(recipe, folder)}")
        model, trained = load_trained(path)
        check_classes(trained.classes, sets, path, "train")
        return TeacherModel(model, trained.preprocessing, describe_trained(section))
    check_has_weights(section)
    checkpoint = section.checkpoint
    info = None if checkpoint is None else find_info(checkpoint)
    stated = StatedInput()
    shape = WeightsShape(None if info is None else len(info.classes), None)
    if checkpoint is not None and info is None:
        content = read_checkpoint(checkpoint)
        stated = find_stated_input(section, checkpoint, content.arguments)
        shape = find_shape(section, content.weights)
    size = _choose_size(recipe, info, stated, shape)
    changes: list[str] = []
    model = create_model(
        section,
        num_classes=_count_weights_classes(section, shape, sets),
        input_size=size,
        on_change=changes.append,
    ).eval()
    source = "pretrained" if checkpoint is None else ", ".join([f"checkpoint {checkpoint.name}", *changes])
    usual = (getattr(model, "pretrained_cfg", None) or {}).get("input_size")
    format, origin = _choose_format(section, model, size, info, stated)
    named = info
    if info is None and stated.classes and len(stated.classes) == int(model.num_classes):  # type: ignore[arg-type]
        named = WeightsInfo.of(section, stated.classes, format)
    if section.class_map is not None:
        own = int(model.num_classes)  # type: ignore[arg-type]
        model = map_classes(model, section, named, sets)
        source = f"{source}, {model.class_map.members} of {own} classes mapped"
    elif section.probe is None:
        names = find_class_names(model, section, named)
        refuse_other_classes(recipe, folder, sets.classes, names)
        if info is not None and checkpoint is not None:
            check_classes(info.classes, sets, checkpoint, "train")
        _refuse_other_order(names.names, sets, stated.source or section.name)
    return TeacherModel(
        model,
        format,
        source,
        origin,
        list_output_classes(model, section, named),
        own_size=section.input_size is not None,
        usual_px=usual[1] if usual and section.input_size is None and not stated.source else None,
        notes=(*stated.left_out, *_name_other_exif(info, recipe)),
    )


def _make_train_command(recipe: Recipe, folder: RunFolder) -> str:
    """Make the command that trains the teacher; with all options where the run does not keep these yet."""
    run = shlex.quote(str(folder.path))
    if (folder / "recipe.yaml").is_file() and folder.read_recipe().teacher == recipe.teacher:
        return f"dskd-compress train {run}"
    return f"dskd-compress train {shlex.join(recipe_as_options(recipe))} --out {run}"


def _name_other_exif(info: WeightsInfo | None, recipe: Recipe) -> list[str]:
    """Name the handling of EXIF where the teacher was trained with another one."""
    own, other = recipe.data.exif, None if info is None else info.exif
    if other is None or other == own:
        return []
    return [f"the teacher was trained with data.exif={other}, this recipe has {own}: --set data.exif={other}"]


def _choose_size(recipe: Recipe, info: WeightsInfo | None, stated: StatedInput, shape: WeightsShape) -> int | None:
    """Choose the side of the images to build a teacher for; None: timm's own.

    One of a fixed size gets that of its weights, whatever the student gets: its accuracy was reached with it.
    """
    section = recipe.teacher
    img_size = section.kwargs.get("img_size")
    of_weights = shape.input_size or stated.side if info is None else info.input_size[1]
    given = (section.input_size, img_size if isinstance(img_size, int) else None, of_weights)
    return next((size for size in given if size is not None), recipe.data.input_size)


def _choose_format(
    section: TeacherSection, model: nn.Module, size: int | None, info: WeightsInfo | None, stated: StatedInput
) -> tuple[Preprocessing, str | None]:
    """Choose how the teacher gets its images, whatever the recipe sets for the student, and name the source.

    The keys of the recipe come first, then what comes with the weights, then timm.
    """
    origin: str | None
    if info is not None:
        format, origin = info.preprocessing, None
    else:
        hub = f"the config of {section.name}" if ":" in section.name else f"timm's for {section.name}"
        format, origin = resolve_preprocessing(DataSection(input_size=size), model), hub
        if stated.source:
            format, origin = stated.apply(format), stated.source
        if size is not None:
            format = replace(format, input_size=(format.input_size[0], size, size))
    keys = [name for name in ("mean", "std", "interpolation", "crop_pct") if getattr(section, name) is not None]
    if section.input_size is not None:
        format = replace(format, input_size=(format.input_size[0], section.input_size, section.input_size))
    if keys:
        format = replace(format, **{name: getattr(section, name) for name in keys})
    if norms := [f"teacher.{name}" for name in keys if name in ("mean", "std")]:
        origin = " and ".join(norms)
    return format, origin


def _refuse_other_order(names: Sequence[str], sets: DataSets, source: str) -> None:
    """Refuse weights of the same classes in another order, which teach every class under another's name.

    Raises:
        DataError: the names are the same, and the order is not.
    """
    if sorted(names) == sorted(sets.classes) and list(names) != list(sets.classes):
        raise DataError(
            f"The teacher has the data's classes in another order ({source}).",
            "Add to the command: --set teacher.class_map=by_name",
        )


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


def find_own_format(section: TeacherSection, model: nn.Module, size: int | None) -> Preprocessing:
    """Find how a teacher's weights were trained to get their images, whatever the recipe sets for the student.

    Args:
        model: built for the weights.
        size: side of its images in pixels; None: timm's own.
    """
    checkpoint = section.checkpoint
    info = None if checkpoint is None else find_info(checkpoint)
    stated = StatedInput()
    if checkpoint is not None and info is None:
        stated = find_stated_input(section, checkpoint, read_checkpoint(checkpoint).arguments)
    return _choose_format(section, model, size, info, stated)[0]


def describe_trained(section: TeacherSection) -> str:
    """Describe the source of the weights of a teacher that this run trained."""
    if section.chosen_fit == "head":
        start = "pretrained" if section.checkpoint is None else f"checkpoint {section.checkpoint.name}"
        return f"{start}, classifier trained by this run"
    return "trained by this run"


def _count_weights_classes(section: TeacherSection, shape: WeightsShape, sets: DataSets) -> int | None:
    """Count the classes to build a teacher for; None: timm's own."""
    if section.checkpoint is None:
        return None
    if shape.classes is None and section.class_map is None and section.probe is None:
        return len(sets.classes)  # a checkpoint of the user has the classes of the data
    return shape.classes
