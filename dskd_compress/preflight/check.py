"""All checks of a run, in the order in which they are cheap."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from dskd_compress.config import Recipe
from dskd_compress.console import Output
from dskd_compress.data import DataSets
from dskd_compress.names import DISTILL, VALIDATE
from dskd_compress.preflight.costs import ModelCost, estimate_disk_mb, estimate_memory_mb
from dskd_compress.preflight.data import count_images, inspect_batches, inspect_data, inspect_orientation
from dskd_compress.preflight.document import Preflight
from dskd_compress.preflight.findings import Findings
from dskd_compress.preflight.machine import (
    inspect_device,
    inspect_disk,
    inspect_folder,
    inspect_memory,
    inspect_packages,
    list_trainings,
)
from dskd_compress.preflight.models import create_shapes, inspect_student, inspect_teacher
from dskd_compress.preflight.sample_size import describe_sample_size
from dskd_compress.run_folder import RunFolder
from dskd_compress.teachers.fit import decide_fit
from dskd_export.errors import DskdError


@dataclass(frozen=True)
class ReadyRun:
    """A run that may start.

    Attributes:
        recipe: with the way in which the teacher gets the classes of the data.
        sets: its images, checked.
        preflight: what was found.
    """

    recipe: Recipe
    sets: DataSets
    preflight: Preflight


def check_run(
    recipe: Recipe, folder: RunFolder, stages: Sequence[str], output: Output, *, first: str | None = None
) -> ReadyRun:
    """Check all that the stages need which have to run; nothing is written.

    Args:
        stages: that are selected, in order.
        first: stage that runs in any case.

    Raises:
        DskdError: the fault, where there is one.
        SeveralProblems: all faults.
    """
    began, found = time.perf_counter(), Findings()
    sets, in_order = inspect_data(recipe, found)
    usable = sets if in_order else None
    recipe = _fit_teacher(recipe, usable, output)
    reasons = find_reasons(recipe, folder, stages, first)  # without the images: hashing them takes time
    # A stage that is up to date runs again after one that is not.
    begin = min((stages.index(name) for name in reasons), default=len(stages))
    running = stages[begin:]
    disk_mb = disk_free_mb = memory_mb = memory_free_mb = None
    if running:
        writable = inspect_folder(folder, found)
        inspect_packages(recipe, running, found)
        device = inspect_device(recipe, running, found)
        if sets is not None:
            inspect_batches(recipe, running, sets, found)
            inspect_orientation(recipe, sets, found)
        student = inspect_student(recipe, usable, found) if DISTILL in running else None
        teacher = inspect_teacher(recipe, folder, running, usable, found)
        if student is not None:
            values = 0 if teacher is None else teacher.values
            disk_mb = estimate_disk_mb(recipe, running, values, student.values)
            disk_free_mb = inspect_disk(folder, disk_mb, found) if writable else None
            if device is not None and student.saved_bytes is not None:
                memory_mb = _estimate_memory(recipe, running, values, student)
                memory_free_mb = inspect_memory(device, memory_mb, found)
    found.raise_faults()
    assert sets is not None  # without images there is a fault
    if sets.left_out:
        output.once(f"{sets.source}: left out {', '.join(sets.left_out)}")
    for sentence in found.warnings:
        output.warn_once(sentence)
    preflight = Preflight(
        pending=reasons,
        classes=len(sets.classes),
        train_images=count_images(sets.train),
        val_images=count_images(sets.val),
        disk_mb=disk_mb,
        disk_free_mb=disk_free_mb,
        memory_mb=memory_mb,
        memory_free_mb=memory_free_mb,
        sample_size=describe_sample_size(recipe, count_images(sets.val)) if VALIDATE in running else "",
        warnings=found.warnings,
        seconds=time.perf_counter() - began,
    )
    return ReadyRun(recipe, sets, preflight)


def find_reasons(
    recipe: Recipe, folder: RunFolder, stages: Sequence[str], first: str | None, data_sha256: str | None = None
) -> dict[str, str]:
    """Find the stages that have to run as things stand, with the reason.

    Args:
        first: stage that runs in any case.
        data_sha256: of the images; None: they are not compared.
    """
    found = {}
    for name in stages:
        why = folder.why_rerun(name, recipe, data_sha256)
        if why is not None or name == first:
            found[name] = why or "requested with --from"
    return found


def _fit_teacher(recipe: Recipe, sets: DataSets | None, output: Output) -> Recipe:
    """Choose how the teacher gets the classes of the data, where its name is known."""
    if sets is None:
        return recipe
    try:
        if ":" not in recipe.teacher.name:
            create_shapes(recipe, "teacher", None)
        return decide_fit(recipe, sets, output)
    except DskdError:
        return recipe  # found again, and reported, where a stage needs the teacher


def _estimate_memory(recipe: Recipe, stages: Sequence[str], teacher: int, student: ModelCost) -> float:
    section = list(list_trainings(recipe, stages))[-1]
    return estimate_memory_mb(section, teacher, student)
