"""From the recipe to a teacher that keeps what it says, or the reason why it cannot."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from dskd_compress.config import Recipe
from dskd_compress.data import DataSets, Preprocessing, StreamSet
from dskd_compress.methods.base import Teacher
from dskd_compress.models import TeacherInput
from dskd_compress.run_folder import RunFolder
from dskd_compress.teachers.cache.accuracy import remembered_accuracy
from dskd_compress.teachers.cache.key import CachedOutput, ImageFacts, adapter_facts, cached_outputs, versions
from dskd_compress.teachers.cache.place import find_room, open_outputs, size_text
from dskd_compress.teachers.cache.teacher import CachedTeacher
from dskd_export.documents.base import Accuracy, Document
from dskd_export.documents.training import TeacherCacheFacts
from dskd_export.errors import RecipeError


class KeyedLoader(Protocol):
    """A training loader whose images can be told apart, whatever epoch and batch they come in."""

    def sample_keys(self, epoch: int, batch: int) -> NDArray[np.int64] | None:
        """(view, index) of the images of a batch, [B, 2]; None where images have no number."""
        ...

    def augmentation_digest(self) -> str:
        """sha256 of all that an image's augmentation depends on besides its key."""
        ...


class TeacherCachePlan(Document):
    """What a teacher cache would take, 1 GB = 10^9 bytes."""

    folder: str
    images: int
    views: int
    bytes_per_image: int
    size_gb: float
    new_gb: float = Field(description="not on the disk yet; all of it where the teacher is still to be trained")
    free_gb: float


@dataclass(frozen=True)
class TeacherCache:
    """Where a recipe keeps which outputs."""

    place: Path
    images: ImageFacts
    outputs: list[CachedOutput]
    recipe: Recipe

    @property
    def bytes_per_image(self) -> int:
        """Of all outputs, on the disk."""
        return sum(output.bytes_per_image for output in self.outputs)

    @property
    def size_gb(self) -> float:
        """Of the whole cache, 1 GB = 10^9 bytes."""
        return self.bytes_per_image * self.images.rows / 1e9

    @classmethod
    def prepare(
        cls,
        recipe: Recipe,
        folder: RunFolder,
        teacher: Teacher,
        loader: KeyedLoader,
        sets: DataSets,
        format: Preprocessing,
        *,
        data_sha256: str,
        teacher_sha256: str,
        device: torch.device,
    ) -> TeacherCache:
        """Find out what is kept; writes nothing.

        Raises:
            RecipeError: nothing kept would ever be read, or an image depends on the others of its batch.
        """
        section, augment = recipe.teacher.cache, recipe.data.augment
        _refuse_mixing(recipe)
        if isinstance(sets.train, StreamSet) or loader.sample_keys(0, 0) is None:
            raise RecipeError(
                f"teacher.cache: the images of {recipe.data.source} come as a stream, in which none has a number.",
                "Set teacher.cache.enabled to false, or give the images as a folder, an archive or arrays.",
            )
        if augment.views is None and section.folder is None:
            raise RecipeError(
                "teacher.cache: every epoch draws new augmentations, so nothing that is kept is ever read again.",
                "Set data.augment.views (for example 4), or teacher.cache.folder for the runs that share it.",
            )
        images = ImageFacts(
            data_sha256=data_sha256,
            augmentation_sha256=loader.augmentation_digest(),
            preprocessing=dataclasses.asdict(format),
            images=len(sets.train),
            views=augment.views or recipe.train.epochs,
        )
        outputs = cached_outputs(
            teacher,
            teacher_sha256=teacher_sha256,
            images=images,
            section=section,
            precision=recipe.train.precision,
            device=device,
        )
        return cls(_place(recipe, folder), images, outputs, recipe)

    def open(self, teacher: Teacher, loader: KeyedLoader) -> CachedTeacher:
        """Make what is not there yet.

        Raises:
            DataError, EnvironmentProblem: as `open_outputs`.
        """
        stores = open_outputs(self.place, self.outputs, self.images, self.recipe.teacher.cache.max_gb)
        return CachedTeacher(
            teacher,
            stores,
            loader.sample_keys,
            images=self.images.images,
            precision=self.recipe.train.precision,
        )

    def describe(self, teacher: CachedTeacher) -> str:
        """One line for a person."""
        filled = min(store.filled() for store in teacher.stores.values()) / self.images.rows
        size = size_text(self.size_gb * 1e9)
        return f"Teacher cache: {size} in {self.place}, {self.images}, {filled:.0%} filled."

    def plan(self) -> TeacherCachePlan:
        """For `--dry-run`.

        Raises:
            EnvironmentProblem: it does not fit the disk.
        """
        room = find_room(self.place, self.outputs, self.images, self.recipe.teacher.cache.max_gb)
        return TeacherCachePlan(
            folder=str(self.place),
            images=self.images.images,
            views=self.images.views,
            bytes_per_image=self.bytes_per_image,
            size_gb=self.size_gb,
            new_gb=room.new / 1e9,
            free_gb=room.free / 1e9,
        )

    def facts(self, teacher: CachedTeacher, counts: Sequence[tuple[int, int]]) -> TeacherCacheFacts:
        """For the documents, after the training.

        Args:
            teacher: of this process.
            counts: images that each process has read and computed.
        """
        return TeacherCacheFacts(
            keys={output.name: output.key for output in self.outputs},
            features=self.recipe.teacher.cache.features,
            views=self.images.views,
            size_gb=self.size_gb,
            images_read=sum(read for read, _ in counts),
            images_computed=sum(computed for _, computed in counts),
            check_error=teacher.error,
        )


def teacher_accuracy(
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
    """The teacher's accuracy on the validation images; with a cache it is measured once."""
    if not recipe.teacher.cache.enabled:
        return measure()
    made_of = {
        "teacher": {
            "model": recipe.teacher.name,
            "kwargs": recipe.teacher.kwargs,
            "weights_sha256": teacher_sha256,
        },
        "teacher_input": adapter_facts(adapter),
        "images": {"data_sha256": data_sha256, "preprocessing": dataclasses.asdict(format)},
        "computed": {"precision": "fp32", "device": device.type, "versions": versions()},
    }
    return remembered_accuracy(_place(recipe, folder), made_of, measure)


def _place(recipe: Recipe, folder: RunFolder) -> Path:
    shared = recipe.teacher.cache.folder
    return folder.teacher_cache if shared is None else shared.expanduser()


def _refuse_mixing(recipe: Recipe) -> None:
    """Mixing and erasing act on a batch: what the teacher sees of an image depends on the others."""
    augment: Any = recipe.data.augment
    on = [f"data.augment.{name}" for name in ("mixup", "cutmix", "erase") if getattr(augment, name) > 0]
    if on:
        raise RecipeError(
            f"teacher.cache: with {' and '.join(on)} an image depends on its batch, and comes never again.",
            f"Set {' and '.join(on)} to 0, or teacher.cache.enabled to false.",
        )
