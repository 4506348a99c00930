"""Check this machine: packages, device, providers, trackers, the run folder, disk and memory."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import torch

from dskd_compress.config import Recipe, TrainSection
from dskd_compress.names import BENCHMARK, DISTILL, TRAIN, TUNE, VALIDATE
from dskd_compress.preflight.findings import Findings
from dskd_compress.required_packages import find_missing_tools
from dskd_compress.run_folder import RunFolder
from dskd_compress.training.device import autocast, resolve_device
from dskd_compress.training.trackers import check_trackers
from dskd_export import codes
from dskd_export.errors import EnvironmentProblem
from dskd_export.precision.build import is_installed
from dskd_export.telemetry.host import available_memory


def inspect_packages(recipe: Recipe, stages: Collection[str], found: Findings) -> None:
    """Check the packages of all stages, the trackers, and the runners and providers that are named."""
    for problem in find_missing_tools(recipe, stages):
        found.add(problem)
    if {TRAIN, DISTILL, TUNE} & set(stages):
        for name in recipe.tracking.trackers:
            one = recipe.tracking.model_copy(update={"trackers": (name,)})
            found.attempt(partial(check_trackers, one))
    sections = ((VALIDATE, recipe.validation), (BENCHMARK, recipe.benchmark))
    for key, section in sections:
        if key not in stages:
            continue
        if section.runners == ("tensorrt",) and not (is_installed("tensorrt") or is_installed("tensorrt_rtx")):
            what = f"{key}.runners requests TensorRT alone, which is not installed."
            found.add(EnvironmentProblem(what, code=codes.TENSORRT))
        if "onnxruntime" in section.runners and is_installed("onnxruntime"):
            for provider in section.providers:
                if provider not in ("auto", "cpu"):
                    found.attempt(partial(_check_provider, provider))


def _check_provider(provider: str) -> None:
    from dskd_export.runtime.onnxruntime import check_provider

    check_provider(provider)


def inspect_device(recipe: Recipe, stages: Collection[str], found: Findings) -> torch.device | None:
    """Check the device and the number type of each training; the device of the last one."""
    device = None
    for section in list_trainings(recipe, stages):
        device = found.attempt(partial(resolve_device, section.device))
        if device is not None:
            found.attempt(partial(autocast, section, device))
    return device


def list_trainings(recipe: Recipe, stages: Collection[str]) -> Iterator[TrainSection]:
    """List the settings of the trainings among the stages."""
    if TRAIN in stages and recipe.teacher.train is not None:
        yield recipe.teacher.train
    if DISTILL in stages or TUNE in stages:
        yield recipe.train


def find_existing(path: Path) -> Path:
    """Find the path itself, or the nearest folder above it that exists."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def inspect_folder(folder: RunFolder, found: Findings) -> bool:
    """Check that the run folder can be written to, without leaving anything there."""
    there = find_existing(folder.path.absolute())
    reason = None
    if not there.is_dir():
        reason = os.strerror(errno.ENOTDIR)
    elif not os.access(there, os.W_OK | os.X_OK):
        reason = os.strerror(errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES)
    elif os.statvfs(there).f_blocks == 0 and not _takes_files(there):
        reason = f"{there} is no place for files"
    if reason is not None:
        what = f"{folder.path} cannot be written to: {reason}."
        found.add(EnvironmentProblem(what, "Choose another folder with --out."))
    return reason is None


def _takes_files(folder: Path) -> bool:
    """Whether a file can be made; asked where the file system has no size.

    /proc and /sys grant root all permissions and take no file. Some network drives and unlimited tmpfs have no
    size either, and do.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def inspect_disk(folder: RunFolder, needed_mb: float, found: Findings) -> float | None:
    """Compare what a run writes at least with the free room, in MB; None: unknown.

    Args:
        folder: can be written to.
    """
    try:
        usage = shutil.disk_usage(find_existing(folder.path.absolute()))
    except OSError:
        return None
    if usage.total == 0:  # its size is not known
        return None
    free_mb = usage.free / 1e6
    sizes = f"{free_mb:,.0f} MB free for {folder.path}; this run writes at least {needed_mb:,.0f} MB"
    if free_mb < needed_mb:
        found.add(EnvironmentProblem(f"{sizes}.", "Free space on that disk, or choose another with --out."))
    elif free_mb < 2 * needed_mb:
        found.warn(f"{sizes}, without the modules that only the training uses.")
    return free_mb


def inspect_memory(device: torch.device, needed_mb: float, found: Findings) -> float | None:
    """Compare the estimate of a training step with the free memory of its device, in MB; None: unknown."""
    if device.type == "cuda":
        free: float | None = torch.cuda.mem_get_info(device)[0]
    else:
        free = available_memory()
    if free is None:
        return None
    if needed_mb * 1e6 > free:
        found.warn(
            f"A training step needs about {needed_mb:,.0f} MB; {device} has {free / 1e6:,.0f} MB of free memory. "
            "Lower train.batch_size, or: --set train.grad_accumulation=4"
        )
    return free / 1e6
