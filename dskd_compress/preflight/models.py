"""Check teacher and student: known to timm, weights there, and of these models and classes.

A model is created on the meta device, where it costs no memory. Only a checkpoint is read, by the functions that
the stages read it with.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from functools import partial
from pathlib import Path

import torch
from torch import nn

from dskd_compress.checkpoints import read_weights
from dskd_compress.config import ModelSection, Recipe
from dskd_compress.data import DataSets, resolve_preprocessing
from dskd_compress.models import create_model, recompute_activations
from dskd_compress.names import BENCHMARK, DISTILL, EXPORT, TRAIN, TUNE, VALIDATE
from dskd_compress.preflight.costs import ModelCost, measure_cost
from dskd_compress.preflight.findings import Findings
from dskd_compress.preflight.pretrained import inspect_pretrained
from dskd_compress.run_folder import RunFolder
from dskd_compress.teachers.classes import read_class_map
from dskd_compress.teachers.load import load_own_teacher
from dskd_export.errors import DskdError

LARGEST_READ_BYTES = 1_000_000_000
"""Of a checkpoint; a larger one is read once, when it is needed."""


def create_shapes(recipe: Recipe, role: str, classes: int | None) -> nn.Module:
    """Create teacher or student without values; weights are neither read nor downloaded.

    Args:
        classes: of the data; None: the architecture's own.

    Raises:
        ModelError: timm has no such model, or does not take its arguments.
    """
    section: ModelSection = getattr(recipe, role)
    bare = section.model_copy(update={"pretrained": False, "checkpoint": None})
    size = recipe.data.input_size
    try:
        with torch.device("meta"):
            return create_model(bare, num_classes=classes, input_size=size)
    except DskdError:
        return create_model(bare, num_classes=classes, input_size=size)  # some models cannot be created there


def inspect_student(recipe: Recipe, sets: DataSets | None, found: Findings) -> ModelCost | None:
    """Check the student that is to be trained; its cost, None where it cannot be created."""
    section = recipe.student
    if ":" in section.name:  # created from a configuration that may have to be downloaded: not here
        inspect_pretrained(section, "student", found)
        return None
    classes = None if sets is None else len(sets.classes)
    model = found.attempt(lambda: create_shapes(recipe, "student", classes))
    # A classifier of other classes is replaced, so those of the data need not be known.
    fits = None if model is None else (classes, recipe.data.input_size)
    _inspect_weights(section, "student", found, fits)
    if model is None:
        return None
    try:
        if recipe.train.grad_checkpointing:
            recompute_activations(model)
        return measure_cost(model, resolve_preprocessing(recipe.data, model).input_size)
    except DskdError as error:
        found.add(error)
    except Exception:  # a model that does not run without values: its memory is unknown
        pass
    return measure_cost(model, None)


def inspect_teacher(
    recipe: Recipe, folder: RunFolder, stages: Collection[str], sets: DataSets | None, found: Findings
) -> ModelCost | None:
    """Check the teacher that the stages need; its cost, None where none is needed or it cannot be created."""
    section = recipe.teacher
    if not _needs_teacher(recipe, stages):
        return None
    if isinstance(path := section.class_map, Path):
        found.attempt(partial(read_class_map, path))
    if ":" in section.name:
        inspect_pretrained(section, "teacher", found)
        return None
    classes = None if sets is None or section.train is None else len(sets.classes)
    model = found.attempt(lambda: create_shapes(recipe, "teacher", classes))
    if section.train is None:
        _inspect_ready_teacher(recipe, folder, sets if model is not None else None, found)
    elif TRAIN in stages:
        size = _find_shared_size(recipe) if model is not None and sets is not None else None
        _inspect_weights(section, "teacher", found, None if size is None else (classes, size))
    return None if model is None else measure_cost(model, None)


def _inspect_ready_teacher(recipe: Recipe, folder: RunFolder, sets: DataSets | None, found: Findings) -> None:
    """Check the weights of a teacher that is not trained here.

    Args:
        sets: images whose classes it has to have; None: only that the weights are there.
    """
    section = recipe.teacher
    if sets is None or (section.checkpoint is None and section.pretrained):
        _inspect_weights(section, "teacher", found)
    elif not _is_large(section.checkpoint):
        found.attempt(partial(_load_teacher, recipe, folder, sets))


def _needs_teacher(recipe: Recipe, stages: Collection[str]) -> bool:
    if not recipe.has_teacher:
        return False
    return (
        bool({TRAIN, DISTILL, TUNE} & set(stages))
        or (EXPORT in stages and recipe.export.teacher)
        or (VALIDATE in stages and recipe.budget.student_drop is not None)
        or (BENCHMARK in stages and recipe.benchmark.teacher)
    )


def _find_shared_size(recipe: Recipe) -> int | None:
    """Find the image size that a teacher is trained with, which is that of the student; None: unknown."""
    if recipe.data.input_size is not None:
        return recipe.data.input_size
    try:
        return resolve_preprocessing(recipe.data, create_shapes(recipe, "student", None)).input_size[1]
    except DskdError:
        return None  # reported with the student


def _inspect_weights(
    section: ModelSection, role: str, found: Findings, fits: tuple[int | None, int | None] | None = None
) -> None:
    """Check that the weights that a training starts from are there.

    Args:
        fits: classes and image size of a model that they have to fit; None: not checked.
    """
    path = section.checkpoint
    if path is not None:
        if fits is None:
            found.attempt(partial(read_weights, path))
        elif not _is_large(path):
            bare = section.model_copy(update={"pretrained": False})
            found.attempt(partial(_create_quietly, bare, *fits))
    elif section.pretrained is True:
        inspect_pretrained(section, role, found)


def _create_quietly(section: ModelSection, classes: int | None, size: int | None) -> None:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        create_model(section, num_classes=classes, input_size=size, on_new_classifier=lambda _: None)


def _load_teacher(recipe: Recipe, folder: RunFolder, sets: DataSets) -> None:
    with torch.random.fork_rng(devices=[]):
        load_own_teacher(recipe, folder, sets)


def _is_large(path: Path | None) -> bool:
    try:
        return path is not None and path.stat().st_size > LARGEST_READ_BYTES
    except OSError:
        return False  # reading it reports the reason
