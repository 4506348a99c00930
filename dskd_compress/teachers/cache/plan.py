"""The teacher cache of a recipe: what it keeps and where, or why it cannot."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field

from dskd_compress.config import Recipe
from dskd_compress.data import DataSets, Preprocessing, StreamSet, TrainLoader
from dskd_compress.methods.base import Teacher
from dskd_compress.run_folder import RunFolder
from dskd_compress.teachers.cache.disk import check_disk, format_bytes, locate_cache, open_outputs
from dskd_compress.teachers.cache.key import CachedOutput, ImageFacts, describe_outputs
from dskd_compress.teachers.cache.teacher import CachedTeacher
from dskd_export.documents.base import Document
from dskd_export.documents.training import TeacherCacheFacts
from dskd_export.errors import RecipeError


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
    """Which outputs a recipe keeps, and where."""

    place: Path
    images: ImageFacts
    outputs: list[CachedOutput]
    recipe: Recipe

    @property
    def bytes_per_image(self) -> int:
        """Disk space of all outputs of one image."""
        return sum(output.bytes_per_image for output in self.outputs)

    @property
    def size_gb(self) -> float:
        """Disk space of the whole cache, 1 GB = 10^9 bytes."""
        return self.bytes_per_image * self.images.rows / 1e9

    @classmethod
    def prepare(
        cls,
        recipe: Recipe,
        folder: RunFolder,
        teacher: Teacher,
        loader: TrainLoader,
        sets: DataSets,
        format: Preprocessing,
        *,
        data_sha256: str,
        teacher_sha256: str,
        device: torch.device,
    ) -> TeacherCache:
        """Find out what is kept; writes nothing.

        Raises:
            RecipeError: nothing would be read again, or an image depends on the others of its batch.
        """
        section, augment = recipe.teacher.cache, recipe.data.augment
        _refuse_mixing(recipe)
        if isinstance(sets.train, StreamSet) or loader.sample_keys(0, 0) is None:
            raise RecipeError(
                f"teacher.cache: the images of {recipe.data.source} are a stream; its images have no numbers.",
                "--set teacher.cache.enabled=false, or set data.source to a folder, an archive or arrays.",
            )
        if augment.views is None and section.folder is None:
            raise RecipeError(
                "teacher.cache: every epoch draws new augmentations, so no output would be read again.",
                "--set data.augment.views=4, or set teacher.cache.folder to share the cache between runs.",
            )
        images = ImageFacts(
            data_sha256=data_sha256,
            augmentation_sha256=loader.augmentation_digest(),
            preprocessing=dataclasses.asdict(format),
            images=len(sets.train),
            views=augment.views or recipe.train.epochs,
        )
        outputs = describe_outputs(
            teacher,
            teacher_sha256=teacher_sha256,
            images=images,
            section=section,
            precision=recipe.train.precision,
            device=device,
        )
        return cls(locate_cache(recipe, folder), images, outputs, recipe)

    def open(self, teacher: Teacher, loader: TrainLoader) -> CachedTeacher:
        """Open the cache, and allocate what is missing.

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
        """Describe the cache in one line."""
        filled = min(store.count_filled() for store in teacher.stores.values()) / self.images.rows
        size = format_bytes(self.size_gb * 1e9)
        return f"Teacher cache: {size} in {self.place}, {self.images}, {filled:.0%} filled."

    def plan(self) -> TeacherCachePlan:
        """Plan the cache for `--dry-run`.

        Raises:
            EnvironmentProblem: it does not fit the disk.
        """
        use = check_disk(self.place, self.outputs, self.images, self.recipe.teacher.cache.max_gb)
        return TeacherCachePlan(
            folder=str(self.place),
            images=self.images.images,
            views=self.images.views,
            bytes_per_image=self.bytes_per_image,
            size_gb=self.size_gb,
            new_gb=use.new / 1e9,
            free_gb=use.free / 1e9,
        )

    def facts(self, teacher: CachedTeacher, counts: Sequence[tuple[int, int]]) -> TeacherCacheFacts:
        """Summarize the cache after the training, for the documents."""
        return TeacherCacheFacts(
            keys={output.name: output.key for output in self.outputs},
            features=self.recipe.teacher.cache.features,
            views=self.images.views,
            size_gb=self.size_gb,
            images_read=sum(read for read, _ in counts),
            images_computed=sum(computed for _, computed in counts),
            check_error=teacher.error,
        )


def _refuse_mixing(recipe: Recipe) -> None:
    """Refuse mixing and erasing: with them the teacher's view of an image depends on its batch."""
    on = [
        f"data.augment.{name}" for name in ("mixup", "cutmix", "erase") if getattr(recipe.data.augment, name) > 0
    ]
    if on:
        raise RecipeError(
            f"teacher.cache: with {' and '.join(on)} an image depends on its batch, so no output can be reused.",
            f"Set {' and '.join(on)} to 0, or teacher.cache.enabled to false.",
        )
