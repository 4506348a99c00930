"""The teacher of a run, ready to be asked about the validation images."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import torch

from dskd_compress.config import Recipe
from dskd_compress.data import DataSets, Preprocessing
from dskd_compress.run_folder import RunFolder
from dskd_compress.teachers.load import load_teacher
from dskd_compress.torch_runner import TorchRunner
from dskd_export.errors import DataError, ModelError, RecipeError


@dataclass(frozen=True)
class OpenTeacher:
    """A teacher that can be called.

    Attributes:
        runner: None: it cannot be called, or nobody wants to know.
        preprocessing: how it wants its images.
        missing: why it cannot be called.
    """

    runner: TorchRunner | None = None
    preprocessing: Preprocessing | None = None
    missing: str = ""


def open_teacher(recipe: Recipe, folder: RunFolder, sets: DataSets, stack: ExitStack) -> OpenTeacher:
    """Open the teacher that the student is judged by; it is closed with the stack.

    Where its weights cannot be had, the student is not judged by it, and the reason is kept.
    """
    if recipe.budget.student_drop is None or recipe.validation.pair is not None:
        return OpenTeacher()
    try:
        teacher = load_teacher(recipe, folder, sets)
    except (DataError, ModelError, RecipeError) as error:
        return OpenTeacher(missing=error.message.rstrip("."))
    on_gpu = torch.cuda.is_available() and recipe.train.device != "cpu"
    runner = stack.enter_context(TorchRunner(teacher.model, device="cuda" if on_gpu else "cpu"))
    return OpenTeacher(runner, teacher.format)
